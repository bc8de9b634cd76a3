"""What does one measurement get: an arena, a plan, and the name of its figure?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from multiagents.lab.bench.arena import APPS, Arena
from multiagents.lab.bench.measurement import (
    Measurement,
    MeasurementPlan,
    Pair,
    Say,
    SideName,
    paired,
)
from multiagents.lab.bench.shapes import Shape

ORDER: tuple[SideName, SideName] = ("celery", "saga")
WARM_UP = 4
"""Sagas or canvases run before the first round, so that every child has run some."""


@dataclass(frozen=True, slots=True)
class Job:
    """One figure to measure."""

    name: str
    what: str
    arena: Arena
    plan: MeasurementPlan
    say: Say

    def part(self, name: str, what: str) -> Job:
        """The job of one of several figures that are measured together."""
        return replace(self, name=f"{self.name}.{name}", what=what)

    def warm_up(self, shape: Shape, count: int = WARM_UP) -> None:
        """Run a little of the work on both sides."""
        for side in APPS:
            self.arena.work(self.arena.starter(side, shape), count, steps=shape.steps)

    def in_turns(self, measure: Callable[[SideName], float], unit: str) -> list[Pair]:
        """Measure both sides in each round; every second round begins with the other one."""
        pairs = []
        for number in range(1, self.plan.rounds + 1):
            order = ORDER if number % 2 else ORDER[::-1]
            found = {side: measure(side) for side in order}
            pairs.append(Pair(**found))
            self._tell(number, pairs[-1], unit)
        return pairs

    def _tell(self, number: int, pair: Pair, unit: str) -> None:
        ratio = "" if pair.ratio is None else f", ratio {pair.ratio:.2f}"
        self.say(
            f"{self.name} {number}/{self.plan.rounds}: saga {pair.saga:,.4g} {unit}, against"
            f" {pair.celery:,.4g}{ratio}"
        )

    def found(self, pairs: list[Pair], **more: Any) -> Measurement:
        """The figure of rounds of pairs."""
        return paired(pairs, name=self.name, what=self.what, **more)

    def alone(self, value: float, **more: Any) -> Measurement:
        """A figure of sagas alone, without a comparison."""
        return Measurement(name=self.name, what=self.what, saga=value, **more)
