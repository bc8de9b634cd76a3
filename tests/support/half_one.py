"""Which half of the functions has the first of two workers on one queue? One is in both."""

from __future__ import annotations

from typing import Any

from multiagents import worker


@worker("half_reserve")
def reserve(context: Any) -> dict[str, Any]:
    """A function of the first worker alone."""
    return {"reserved": True}


@worker("half_release")
def release(context: Any) -> dict[str, Any]:
    """The undo of the other worker's step."""
    return {"released": True}
