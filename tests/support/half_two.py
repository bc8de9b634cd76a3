"""Which half of the functions has the second of two workers on one queue?"""

from __future__ import annotations

from typing import Any

from multiagents import NonRetryableError, worker


@worker("half_charge")
def charge(context: Any) -> dict[str, Any]:
    """A function of the second worker alone."""
    return {"charged": True}


@worker("half_refund")
def refund(context: Any) -> dict[str, Any]:
    """The undo of the other worker's step."""
    return {"refunded": True}


@worker("half_refuse")
def refuse(context: Any) -> dict[str, Any]:
    """Always fails, clean."""
    raise NonRetryableError("no", clean=True)
