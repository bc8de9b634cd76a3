"""Which headers of a Celery message are its sender's own?

For Celery 5.7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery.app.task import Context

from multiagents.core.names import HEADER, TELLS

OWN = frozenset(name for name in vars(Context) if not name.startswith("_")) | {
    "argsrepr",
    "compression",
    "kwargsrepr",
    "lang",
    "task",
    HEADER,
    TELLS,
}
"""What Celery and the engine put there."""


def custom(request: Mapping[str, Any]) -> dict[str, Any]:
    """What else a request holds: the headers that its sender gave it."""
    return {name: request[name] for name in request.keys() - OWN}
