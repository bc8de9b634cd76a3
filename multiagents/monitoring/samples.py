"""How are many durations told in a few numbers?

Over a bounded window of the newest values, so that memory stays bounded and old days do not hide
today.  p95 is the nearest rank: a value that was really measured.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import TypedDict

WINDOW = 1000


class Summary(TypedDict):
    """Of the newest ``samples`` values; None where there is none yet.  Unit as of the values."""

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
        """Remember a value; negative ones (two hosts' clocks) count as 0."""
        self._values.append(max(0.0, value))

    def summary(self) -> Summary:
        """The numbers of now."""
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
