"""What do waiting sagas cost?

The bench brings many sagas to a retry timer that ends long after it.  It measures the worker's idle
processes before and after that.
"""

from __future__ import annotations

import statistics
import time
from functools import partial

from multiagents.lab.bench.arena import SOON_MS, Arena
from multiagents.lab.bench.cpu import seconds, tree_seconds
from multiagents.lab.bench.job import Job
from multiagents.lab.bench.measurement import Measurement, Pair
from multiagents.lab.bench.shapes import GIVEN, waiting_for_a_timer
from multiagents.lab.bench.speed import Measure

WINDOW_S = 4.0
"""Seconds of one measurement: some sweeps, which run once a second."""
PATIENCE_S = 1800.0
BATCH = 5000
"""Starts between two lines of progress."""

Load = tuple[float, float]
"""Processor milliseconds per second: of the worker's processes, and of the server."""


def waiting(window_s: float = WINDOW_S) -> Measure:
    """Processor milliseconds per second of a worker, with waiting sagas and without."""

    def measure(job: Job) -> list[Measurement]:
        count, rounds = job.plan.many(job.plan.waiting), range(job.plan.rounds)
        if tree_seconds(job.arena.server.pid) is None:
            return [Measurement(job.name, job.what, "CPU ms/s", saga=None)]
        job.arena.rest()
        idle = [_watch(job.arena, window_s) for _ in rounds]
        job.say(f"{job.name}: {_median(idle):.3g} CPU ms/s without sagas")
        _bring_to_wait(job, count)
        _watch(job.arena, window_s)  # the cleanup after the many steps does not count
        busy = [_watch(job.arena, window_s) for _ in rounds]
        job.say(f"{job.name}: {_median(busy):.3g} CPU ms/s with {count:,}")
        pairs = [Pair(now, before) for (now, _), (before, _) in zip(busy, idle, strict=True)]
        server = {"server_base": _median(idle, 1), "server": _median(busy, 1)}
        return [
            job.found(pairs, against="base", unit="CPU ms/s", detail={"sagas": count, **server})
        ]

    return measure


def _median(loads: list[Load], which: int = 0) -> float:
    return statistics.median(load[which] for load in loads)


def _watch(arena: Arena, window_s: float) -> Load:
    worker, server = arena.workers["saga"].process.pid, arena.server.pid
    began, before = time.monotonic(), (tree_seconds(worker) or 0.0, seconds(server))
    time.sleep(window_s)
    after, passed = (tree_seconds(worker) or 0.0, seconds(server)), time.monotonic() - began
    return 1000 * (after[0] - before[0]) / passed, 1000 * (after[1] - before[1]) / passed


def _bring_to_wait(job: Job, count: int) -> None:
    """Start ``count`` sagas, and return when each of them has its timer."""
    arena, workflow = job.arena, waiting_for_a_timer()
    for number in range(count):
        if number and number % BATCH == 0:
            job.say(f"{job.name}: {number:,} of {count:,} sagas started")
        arena.session.runtime.start_saga.delay(workflow, GIVEN)
    for number in (*range(BATCH, count, BATCH), count):
        if _timers(arena) < number:
            arena.until(partial(_has_timers, arena, number), f"{number:,} timers", PATIENCE_S)
            job.say(f"{job.name}: {number:,} of {count:,} sagas wait")
    arena.rest()


def _has_timers(arena: Arena, number: int) -> bool:
    return _timers(arena) >= number


def _timers(arena: Arena) -> int:
    return arena.due(arena.session.now_ms + SOON_MS, "+inf")
