"""What of a circuit breaker is in Redis?

One hash per breaker, shared by every process; ``lua/breaker.lua`` holds its rules.  A breaker
spans sagas and belongs to none, so its key carries no shard.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from multiagents.storage.calls import Call
from multiagents.storage.replies import text_of


@dataclass(frozen=True, slots=True)
class Limits:
    """When a circuit opens, and for how long."""

    failure_threshold: float
    """The share of failures, above 0 to 1, that opens it."""
    min_calls: int
    """So many calls within the window are needed before it can open."""
    window_ms: int
    open_ms: int


@dataclass(frozen=True, slots=True)
class Permit:
    """The answer to `ask`.  ``wait_ms``: until the next probe may go, if not allowed."""

    allowed: bool
    probe: bool = False
    wait_ms: int = 0


def key(name: str) -> str:
    """Where the breaker of that name is kept."""
    return f"ma:breaker:{name}"


def ask(name: str, limits: Limits, *, now_ms: int, nonce: str) -> Call[Permit]:
    """May a call be made now?  ``nonce`` names the call, so that asking twice is harmless."""
    return Call("breaker", (key(name),), ("ask", now_ms, limits.open_ms, nonce), _permit)


def tell(name: str, limits: Limits, *, now_ms: int, ok: bool, probe: bool) -> Call[str]:
    """What became of an allowed call; gives the circuit's state after it, open or closed."""
    args = (
        "tell",
        now_ms,
        limits.open_ms,
        "ok" if ok else "bad",
        int(probe),
        limits.window_ms,
        limits.min_calls,
        repr(limits.failure_threshold),
    )
    return Call("breaker", (key(name),), args, text_of)


def _permit(reply: Any) -> Permit:
    allowed, probe, wait_ms = reply
    return Permit(bool(allowed), bool(probe), int(wait_ms))
