"""What does a measurement return?

Values only.  `Measurement.to_dict` is what ``--json`` prints;
docs/reference/cli.md names its fields.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Say = Callable[[str], None]
"""Takes a line of progress."""
SideName = Literal["saga", "celery"]
KIB = 1024


@dataclass(frozen=True, slots=True)
class MeasurementPlan:
    """The options of a bench."""

    rounds: int = 5
    scale: float = 1.0
    """A factor for the amount of work in a round."""
    concurrency: int = 2
    appendfsync: str = "everysec"
    events: bool = False
    waiting: int = 20_000
    """The number of sagas that wait for a timer in `waiting`."""
    minutes: float = 10.0
    """How long `leases` keeps all processors busy."""

    def many(self, usual: int, *, least: int = 1) -> int:
        """The usual number, multiplied by `scale`."""
        return max(least, round(usual * self.scale))


@dataclass(frozen=True, slots=True)
class Pair:
    """The two sides of one round, in one unit; ``celery`` may be another figure of sagas."""

    saga: float
    celery: float

    @property
    def ratio(self) -> float | None:
        """``saga`` divided by ``celery``; None if that is 0."""
        return self.saga / self.celery if self.celery else None


@dataclass(frozen=True, slots=True)
class Measurement:
    """One figure: medians over the rounds, and the ratio of each round's pair.

    ``celery`` and the ratios are None without a comparison.  ``base`` is the divisor of the ratio
    if that is another figure of sagas.  ``saga`` is None if this machine cannot measure it.
    """

    name: str
    what: str
    unit: str
    saga: float | None
    celery: float | None = None
    base: float | None = None
    ratio: float | None = None
    ratio_min: float | None = None
    ratio_max: float | None = None
    rounds: int = 1
    errors: dict[SideName, int] = field(default_factory=lambda: {"saga": 0, "celery": 0})
    detail: dict[str, Any] = field(default_factory=dict)

    def to_dict(self, plan: MeasurementPlan) -> dict[str, Any]:
        """The figure as JSON shows it, with its settings."""
        settings = {
            "concurrency": plan.concurrency,
            "appendfsync": plan.appendfsync,
            "events": plan.events,
        }
        facts = {name: _short(value) for name, value in asdict(self).items()}
        return {**facts, **settings}


def paired(
    pairs: Sequence[Pair], *, against: Literal["celery", "base"] = "celery", **more: Any
) -> Measurement:
    """The figure of rounds of pairs.  ``against``: the meaning of a pair's second number."""
    ratios = [pair.ratio for pair in pairs if pair.ratio is not None]
    second = statistics.median(pair.celery for pair in pairs)
    return Measurement(
        saga=statistics.median(pair.saga for pair in pairs),
        ratio=statistics.median(ratios) if ratios else None,
        ratio_min=min(ratios, default=None),
        ratio_max=max(ratios, default=None),
        rounds=len(pairs),
        celery=second if against == "celery" else None,
        base=second if against == "base" else None,
        **more,
    )


def _short(value: Any) -> Any:
    """The value rounded to four digits: a bench is not more precise."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: _short(inner) for name, inner in value.items()}
    return value
