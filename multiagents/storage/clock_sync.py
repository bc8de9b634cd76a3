"""When is this process's clock compared with the server's?

Before it is first used, each minute, and when the host's clock has been set meanwhile, which the
monotonic clock tells without a question to anybody.
"""

from __future__ import annotations

import os
import time

from multiagents.core.clock import Clock
from multiagents.storage.client import Edge

CORRECT_S = 60.0
"""How often the clocks are compared: a bad quartz drifts by some milliseconds in that time."""
STEP_MS = 500
"""A host's clock that has moved by so much since then has been set."""


class Timekeeper:
    """Keeps a clock corrected; a forked child begins anew."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pid = 0
        self._corrected_s = 0.0
        self._lead_ms = 0.0

    def keep(self, edge: Edge, *, only_if_set: bool = False) -> None:
        """Correct the clock if it is time to.  Raises the store's error.

        ``only_if_set``: not for its minute's sake, which can wait.
        """
        if self._is_right() or (only_if_set and self._is_as_it_was()):
            return
        edge.correct(self._clock)
        self._pid, self._corrected_s = os.getpid(), time.monotonic()
        self._lead_ms = self._measured_ms()

    def _is_right(self) -> bool:
        return self._is_as_it_was() and time.monotonic() - self._corrected_s < CORRECT_S

    def _is_as_it_was(self) -> bool:
        """Whether it was compared by this process, and not set since."""
        same = self._pid == os.getpid()
        return same and abs(self._measured_ms() - self._lead_ms) < STEP_MS

    def _measured_ms(self) -> float:
        """How far the clock is ahead of the monotonic one: the same until somebody sets it."""
        return self._clock.now_ms() - time.monotonic() * 1000
