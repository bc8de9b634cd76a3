"""How do a few numbers summarise many durations?

They cover a window of the newest values.  So memory is bounded, and old values do not hide new
ones.  p95 is the nearest rank: a value that was really measured.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import TypedDict

WINDOW = 1000


class Summary(TypedDict):
    """A summary of the newest ``samples`` values, in their unit; None without a value."""

    samples: int
    mean: float | None
    median: float | None
    p95: float | None
    max: float | None


class Samples:
    """The newest values of one measure."""

    def __init__(self, window: int = WINDOW) -> None:
        self._values: deque[float] = deque(maxlen=window)

    def add(self, value: float) -> None:
        """Add a value; a negative one (from the clocks of two hosts) counts as 0."""
        self._values.append(max(0.0, value))

    def summary(self) -> Summary:
        """The present numbers."""
        ordered = sorted(self._values)
        if not ordered:
            return {"samples": 0, "mean": None, "median": None, "p95": None, "max": None}
        return {
            "samples": len(ordered),
            "mean": statistics.fmean(ordered),
            "median": statistics.median(ordered),
            "p95": ordered[math.ceil(0.95 * len(ordered)) - 1],
            "max": ordered[-1],
        }
