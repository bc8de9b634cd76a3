"""When does a sweeper look at the due set again?

Every worker has a sweeper, and all of them see the same first due item.  Would each wake for it to
the millisecond, a thousand would ask the server in that very millisecond, all but one in vain, and
stay in step from then on.  So each wakes at a random moment of a span that is a millisecond long
for every worker: about one of them wakes in each.  A worker alone is as punctual as the clock.

Rules: no pause is longer than `longest_s`, however many workers one believes there are, so a due
item starts in time although all others have died.  No clock, no Redis.
"""

from __future__ import annotations

from collections.abc import Callable

from multiagents.core.settings import Settings

SPAN_MS = 1.0
"""By so much for each worker do the moments spread at which they wake for one item."""
JITTER = 1 / 8
"""The longest pause is shortened by up to this share: workers that a stall of the server or a
frozen host has put in step come out of it."""


class Pace:
    """Chooses pauses.  ``peers``: how many workers there are; ``chance``: 0 to 1, at random."""

    def __init__(
        self, settings: Settings, *, peers: Callable[[], int], chance: Callable[[], float]
    ) -> None:
        # A tick must not be half a lease late, or no lease would ever end (E9).
        self.longest_s = min(settings.sweep_s * 0.95, settings.lease_s / 8)
        self._peers = peers
        self._chance = chance

    def pause_s(self, due_ms: float | None, now_ms: int) -> float:
        """How long to wait when the first item is due at ``due_ms``; None: there is none."""
        longest_s = self.longest_s * (1 - JITTER * self._chance())
        if due_ms is None or due_ms <= now_ms:
            return longest_s
        span_ms = SPAN_MS * self._peers() * self._chance()
        return min(longest_s, (due_ms - now_ms + 1 + span_ms) / 1000)
