"""How fast is a saga against the same work as a bare Celery canvas, and how much CPU does it take?

Each round measures both sides, one after the other, and the next round begins with the other side.
The ratio of such a pair is meaningful even if the machine's speed changes by the minute.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from multiagents.lab.bench.arena import QUEUES, SideResult
from multiagents.lab.bench.job import ORDER, WARM_UP, Job
from multiagents.lab.bench.measurement import Measurement, Pair, SideName
from multiagents.lab.bench.shapes import Shape

Measure = Callable[[Job], list[Measurement]]
MakeShape = Callable[[], Shape]

LATENCY_RUNS = 20
"""Runs of each side in a round; their median counts."""
STARTS = 200
"""Starts of each side in a round."""


def throughput(make: MakeShape, count: int) -> Measure:
    """Steps per second of ``count`` sagas or canvases that start at once."""

    def measure(job: Job) -> list[Measurement]:
        shape, tally = make(), Tally(job)
        job.warm_up(shape, min(count, WARM_UP))
        pieces = job.plan.many(count)
        pairs = job.in_turns(lambda side: tally.once(side, shape, pieces).rate, "steps/s")
        return [job.found(pairs, unit="steps/s", errors=tally.errors, detail=tally.detail())]

    return measure


def cpu(make: MakeShape, count: int) -> Measure:
    """Processor milliseconds per step: in all, and by process."""

    def measure(job: Job) -> list[Measurement]:
        shape, tally = make(), Tally(job)
        job.warm_up(shape)
        pieces = job.plan.many(count)

        def total(side: SideName) -> float:
            tally.once(side, shape, pieces)
            return tally.used[side][-1]["total"] if tally.used[side] else 0.0

        job.in_turns(total, "ms/step")
        if not tally.used["saga"]:
            return [Measurement(job.name, job.what, "ms/step", saga=None)]
        return [
            _figure_of(job, part, tally, unit="ms/step", errors=tally.errors)
            for part in tally.used["saga"][0]
        ]

    return measure


def _figure_of(job: Job, part: str, tally: Tally, **more: Any) -> Measurement:
    found = zip(tally.used["saga"], tally.used["celery"], strict=True)
    pairs = [Pair(saga[part], celery[part]) for saga, celery in found]
    named = job if part == "total" else job.part(part, f"{job.what}: {part}")
    return named.found(pairs, **more)


def latency(make: MakeShape) -> Measure:
    """Milliseconds from ``delay`` to the outcome, one at a time in an idle system."""

    def measure(job: Job) -> list[Measurement]:
        shape, tally = make(), Tally(job)
        runs = job.plan.many(LATENCY_RUNS)

        def alone(side: SideName) -> float:
            return statistics.median(tally.once(side, shape, 1).seconds for _ in range(runs)) * 1000

        job.warm_up(shape)
        pairs = job.in_turns(alone, "ms")
        return [job.found(pairs, unit="ms", errors=tally.errors, detail=tally.failures())]

    return measure


def starts(make: MakeShape) -> Measure:
    """Starts per second of one client process, while no worker consumes anything."""

    def measure(job: Job) -> list[Measurement]:
        shape, count = make(), job.plan.many(STARTS)

        def rate(side: SideName) -> float:
            begin = job.arena.starter(side, shape)
            began = time.perf_counter()
            results = [begin() for _ in range(count)]
            found = count / (time.perf_counter() - began)
            for result in results:
                result.forget()
            job.arena.client.delete(*QUEUES.values())
            return found

        for side in ORDER:
            rate(side)
        return [job.found(job.in_turns(rate, "starts/s"), unit="starts/s")]

    return measure


class Tally:
    """Collects errors and processor times of both sides' rounds."""

    def __init__(self, job: Job) -> None:
        self._arena = job.arena
        self.errors: dict[SideName, int] = {"saga": 0, "celery": 0}
        self.used: defaultdict[SideName, list[dict[str, float]]] = defaultdict(list)
        """Processor milliseconds per step of each round, by process; empty if unknown."""
        self._first: dict[SideName, str] = {}

    def once(self, side: SideName, shape: Shape, pieces: int) -> SideResult:
        """One round of one side."""
        meter = self._arena.meter(side)
        before = meter.read()
        outcome = self._arena.work(self._arena.starter(side, shape), pieces, steps=shape.steps)
        after = meter.read()
        if before is not None and after is not None:
            self.used[side].append((after - before).per(outcome.steps))
        self.errors[side] += outcome.errors
        if outcome.errors:
            self._first.setdefault(side, outcome.first_error)
        return outcome

    def failures(self) -> dict[str, Any]:
        """The first error of each side that had one."""
        return {"first_error": self._first} if self._first else {}

    def detail(self) -> dict[str, Any]:
        """The medians of the processor times, and the `failures`."""
        if not self.used:
            return self.failures()
        medians = {side: _medians(self.used[side]) for side in ORDER}
        return {**self.failures(), "cpu_ms_per_step": medians}


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {part: statistics.median(one[part] for one in rounds) for part in rounds[0]}
