"""A function that no worker has until one with this module starts."""

from __future__ import annotations

from typing import Any

from multiagents import worker


@worker("half_pack")
def pack(context: Any) -> dict[str, Any]:
    """Of the worker that comes last."""
    return {"packed": True}
