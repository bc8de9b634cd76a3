"""What does a circuit breaker store in Redis?

One hash for each breaker, shared by all processes; ``lua/breaker.lua`` has its rules.  A breaker
spans sagas, so its key has no shard.
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
    """The number of calls within the window that it needs before it can open."""
    window_ms: int
    open_ms: int


@dataclass(frozen=True, slots=True)
class Permit:
    """The answer to `ask`.  ``wait_ms``: if not allowed, the time until the next probe."""

    allowed: bool
    probe: bool = False
    wait_ms: int = 0


def key(name: str) -> str:
    """The key of the breaker with that name."""
    return f"ma:breaker:{name}"


def ask(name: str, limits: Limits, *, now_ms: int, nonce: str) -> Call[Permit]:
    """Whether a call is allowed now.  ``nonce`` names the call, so a repeat is harmless."""
    return Call("breaker", (key(name),), ("ask", now_ms, limits.open_ms, nonce), _permit)


def tell(name: str, limits: Limits, *, now_ms: int, ok: bool, probe: bool) -> Call[str]:
    """Report the outcome of an allowed call; replies the circuit's new state, open or closed."""
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
