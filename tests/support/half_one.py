"""Half of the functions of two workers that consume one queue, and one that both have."""

from __future__ import annotations

from typing import Any

from multiagents import worker


@worker("half_reserve")
def reserve(context: Any) -> dict[str, Any]:
    """Of the first worker alone."""
    return {"reserved": True}


@worker("half_release")
def release(context: Any) -> dict[str, Any]:
    """The undo of the other worker's step."""
    return {"released": True}
