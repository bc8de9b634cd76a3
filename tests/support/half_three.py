"""Which function does no worker have until one with this module starts?"""

from __future__ import annotations

from typing import Any

from multiagents import worker


@worker("half_pack")
def pack(context: Any) -> dict[str, Any]:
    """A function of the worker that starts last."""
    return {"packed": True}
