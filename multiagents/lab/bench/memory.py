"""How much memory in Redis does a saga take?

The figure is the sum of MEMORY USAGE over all keys of the engine, with indexes and due times.  The
server's ``used_memory`` is useless here: the buffers of connections change it by more than a
hundred sagas.  Messages in queues and Celery's own result keys are reported separately.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from multiagents.lab.bench.arena import Arena
from multiagents.lab.bench.job import Job
from multiagents.lab.bench.measurement import KIB, Measurement
from multiagents.lab.bench.shapes import GIVEN, chain_of, held_before_last
from multiagents.lab.bench.speed import Measure
from multiagents.storage.keys import PREFIX

SAGAS = 200
"""The number of sagas in a round."""
NOBODY = "bench_nobody"
"""A queue that no worker consumes."""
SETTLE_S = 0.1
"""A sum that is unchanged for this long is final: the engine has handled the last saga's end."""
CATALOG = ":catalog:"
"""Part of the keys that belong to workers, not to sagas."""

Bytes = tuple[float, float]
"""Bytes of a saga, and of its message or result, which do not count."""


def memory(steps: int) -> Measure:
    """KiB of a saga in flight and of one that has ended."""

    def measure(job: Job) -> list[Measurement]:
        # Ended sagas come first: with sagas in flight, an item is always due soon.
        ended = _rounds(job, _ended, steps)
        flight = _rounds(job, _in_flight, steps)
        return [
            _figure(
                job.part("flight", f"memory of a saga in flight, {steps} steps"),
                flight,
                "message",
            ),
            _figure(job.part("ended", "memory of a saga that has ended"), ended, "result_key"),
        ]

    return measure


def _rounds(job: Job, weigh: Callable[[Arena, int, int], Bytes], steps: int) -> list[Bytes]:
    weigh(job.arena, steps, 1)  # stores the definition, which all sagas share
    count = job.plan.many(SAGAS)
    return [weigh(job.arena, steps, count) for _ in range(job.plan.rounds)]


def _figure(job: Job, rounds: list[Bytes], beside: str) -> Measurement:
    kib = [own / KIB for own, _ in rounds]
    found = Measurement(
        name=job.name,
        what=job.what,
        unit="KiB",
        saga=statistics.median(kib),
        rounds=len(rounds),
        detail={
            "min": min(kib),
            "max": max(kib),
            f"{beside}_kib": statistics.median(other / KIB for _, other in rounds),
        },
    )
    job.say(f"{job.name}: {found.saga:.3g} KiB per saga")
    return found


def _ended(arena: Arena, steps: int, count: int) -> Bytes:
    """Bytes of a saga that has completed, and of its key in Celery's result backend."""
    workflow = chain_of(steps).workflow
    arena.rest()
    before = _used(arena)
    results = [arena.session.runtime.start_saga.delay(workflow, GIVEN) for _ in range(count)]
    for result in results:
        arena.wait(result)
    arena.rest()
    keys = sum(_size(arena, result.backend.get_key_for_task(result.id)) for result in results)
    return (_used(arena) - before) / count, keys / count


def _in_flight(arena: Arena, steps: int, count: int) -> Bytes:
    """Bytes of a saga whose last step waits on a queue, and of its message there."""
    workflow = held_before_last(steps, NOBODY)
    before, messages_before = _used(arena), _size(arena, NOBODY)
    expected = int(arena.client.llen(NOBODY)) + count
    for _ in range(count):
        arena.session.runtime.start_saga.delay(workflow, GIVEN)
    arena.until(lambda: arena.client.llen(NOBODY) >= expected, "sagas to reach their last step")
    messages = _size(arena, NOBODY) - messages_before
    return (_used(arena) - before) / count, messages / count


def _used(arena: Arena) -> int:
    """Bytes of all keys of the engine, when the sum no longer changes."""
    seen = [-1]

    def same() -> bool:
        seen.append(_sum(arena))
        time.sleep(0 if seen[-1] == seen[-2] else SETTLE_S)
        return seen[-1] == seen[-2]

    arena.until(same, "the memory of sagas to settle")
    return seen[-1]


def _sum(arena: Arena) -> int:
    pipe = arena.client.pipeline(transaction=False)
    for key in arena.client.scan_iter(f"{PREFIX}:*", count=1000):
        if CATALOG.encode() not in key:
            pipe.memory_usage(key, samples=0)
    return sum(size or 0 for size in pipe.execute())


def _size(arena: Arena, key: Any) -> int:
    return int(arena.client.memory_usage(key, samples=0) or 0)
