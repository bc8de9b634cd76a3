"""When is this process's clock compared with the server's?

Before its first use, each minute, and after the host's clock was set.  A comparison with the
monotonic clock detects that without a request.
"""

from __future__ import annotations

import os
import time

from multiagents.core.clock import Clock
from multiagents.storage.client import Edge

CORRECT_S = 60.0
"""The interval of comparisons: a bad quartz drifts by some milliseconds in that time."""
STEP_MS = 500
"""A host's clock that deviates by this much since the last comparison was set."""


class Timekeeper:
    """Keeps a clock corrected; a forked child begins anew."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pid = 0
        self._corrected_s = 0.0
        self._lead_ms = 0.0

    def keep(self, edge: Edge, *, only_if_set: bool = False) -> None:
        """Correct the clock if a comparison is due.  Raises the store's error.

        ``only_if_set``: only after the host's clock was set; the interval can wait.
        """
        if self._is_right() or (only_if_set and self._is_as_it_was()):
            return
        edge.correct(self._clock)
        self._pid, self._corrected_s = os.getpid(), time.monotonic()
        self._lead_ms = self._measured_ms()

    def _is_right(self) -> bool:
        return self._is_as_it_was() and time.monotonic() - self._corrected_s < CORRECT_S

    def _is_as_it_was(self) -> bool:
        """Whether this process compared the clock, and it was not set since."""
        same = self._pid == os.getpid()
        return same and abs(self._measured_ms() - self._lead_ms) < STEP_MS

    def _measured_ms(self) -> float:
        """The clock's lead over the monotonic one: constant until the clock is set."""
        return self._clock.now_ms() - time.monotonic() * 1000
