"""What time is it, in Unix milliseconds?

Only this module reads a clock.  `SystemClock` corrects the host's clock by the server's, so that a
host with a wrong clock does not steal leases.  Tests advance a `FakeClock`.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """A source of the time.  Only the engine's edges use one; decisions receive a time."""

    def now_ms(self) -> int:
        """Unix time in milliseconds, by the server's clock as far as known."""


class SystemClock:
    """The host's clock, moved by ``offset_ms`` (server minus host)."""

    def __init__(self) -> None:
        self.offset_ms = 0

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self.offset_ms

    def correct(self, *, server_ms: int, sent_ms: int, received_ms: int) -> None:
        """Set the offset from one TIME call, assuming a reply half-way (Cristian 1989)."""
        self.offset_ms = server_ms - (sent_ms + received_ms) // 2


class FakeClock:
    """A clock that only `advance` moves."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        self._now_ms += round(seconds * 1000)


def iso(ms: int) -> str | None:
    """A time as ISO 8601 in UTC; None for "not yet"."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds") if ms else None
