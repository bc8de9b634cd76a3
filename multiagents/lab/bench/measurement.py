"""What does a bench find?

Values only.  `Measurement.to_dict` is what ``--json`` prints;
docs/reference/cli.md names its fields.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Say = Callable[[str], None]
"""Takes a line that says how far a bench is."""
SideName = Literal["saga", "celery"]
KIB = 1024


@dataclass(frozen=True, slots=True)
class MeasurementPlan:
    """How to measure."""

    rounds: int = 5
    scale: float = 1.0
    """How much work a round holds, as a factor."""
    concurrency: int = 2
    appendfsync: str = "everysec"
    events: bool = False
    waiting: int = 20_000
    """Sagas that wait for a timer, where that is measured."""
    minutes: float = 10.0
    """How long leases are watched under load, where that is measured."""

    def many(self, usual: int, *, least: int = 1) -> int:
        """So many instead of the usual number."""
        return max(least, round(usual * self.scale))


@dataclass(frozen=True, slots=True)
class Pair:
    """The two sides of one round, in one unit; ``celery`` may be another figure of sagas."""

    saga: float
    celery: float

    @property
    def ratio(self) -> float | None:
        """None where there is nothing to divide by."""
        return self.saga / self.celery if self.celery else None


@dataclass(frozen=True, slots=True)
class Measurement:
    """One figure: medians over the rounds, and the ratio of each round's pair.

    ``celery`` and the ratios are None where a saga is compared with nothing.  ``base`` is what
    the ratio divides by where that is another figure of sagas.  ``saga`` is None where this
    machine does not tell.
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
        """As JSON shows it, with the settings that it was measured under."""
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
    """What rounds of pairs come to.  ``against``: what the second of a pair is."""
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
    """Four digits say all that a bench can know."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: _short(inner) for name, inner in value.items()}
    return value
