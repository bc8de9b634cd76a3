"""A process whose messages go through Celery and kombu, each after its commit.

Imported by a worker or a client (MULTIAGENTS_IMPORTS): somebody who listens to what is published
must be told of every message, so no commit sends one by itself.
"""

from __future__ import annotations

from typing import Any

from celery import signals


@signals.before_task_publish.connect(weak=False)  # type: ignore[untyped-decorator]  # no types
def listen(**_: Any) -> None:
    """Hear of a message and leave it as it is."""
