"""When does a sweeper look at the due set again?

Every worker has a sweeper, and all of them see the same first due item.  If all woke in the same
millisecond, a thousand sweepers would query the server at once, 999 of them for nothing, and would
stay in step.  So each wakes at a random moment of a span of one millisecond per worker, and about
one wakes in each millisecond.  A single worker is as punctual as the clock.

Rule: no pause is longer than `longest_s`, whatever the number of workers.  So a due item starts in
time even if all other workers have died.  No clock, no Redis.
"""

from __future__ import annotations

from collections.abc import Callable

from multiagents.core.settings import Settings

SPAN_MS = 1.0
"""The span of the wake-up moments for one item grows by this much per worker."""
JITTER = 1 / 8
"""The longest pause is shortened by up to this share.  It separates workers that a stall of the
server or a frozen host has put in step."""


class Pace:
    """Chooses pauses.  ``peers``: the number of workers; ``chance``: 0 to 1, at random."""

    def __init__(
        self, settings: Settings, *, peers: Callable[[], int], chance: Callable[[], float]
    ) -> None:
        # A tick must not be half a lease late, or no lease would ever end (E9).
        self.longest_s = min(settings.sweep_s * 0.95, settings.lease_s / 8)
        self._peers = peers
        self._chance = chance

    def pause_s(self, due_ms: float | None, now_ms: int) -> float:
        """The pause in seconds before a first item due at ``due_ms``; None: there is none."""
        longest_s = self.longest_s * (1 - JITTER * self._chance())
        if due_ms is None or due_ms <= now_ms:
            return longest_s
        span_ms = SPAN_MS * self._peers() * self._chance()
        return min(longest_s, (due_ms - now_ms + 1 + span_ms) / 1000)
