"""Does a step cost more in a large saga?

Small and large sagas alternate.  A round has the same number of steps in both sizes.  It runs as
many large chains at once as the worker has children: one chain keeps only one child busy, but many
small ones keep all of them busy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from multiagents.lab.bench.job import WARM_UP, Job
from multiagents.lab.bench.measurement import Measurement, SideName
from multiagents.lab.bench.shapes import Shape, chain_of, fan_of
from multiagents.lab.bench.speed import Measure

SMALL, LARGE = 10, 1000


def growth() -> Measure:
    """Milliseconds per step of large chains and fan-outs, against small ones."""

    def measure(job: Job) -> list[Measurement]:
        large = job.plan.many(LARGE, least=2 * SMALL)
        chain = job.part("chain", f"a step in chains of {large:,}, against {SMALL}")
        fan = job.part("fan", f"a step in fan-outs of {large:,}, against {SMALL}")
        return [
            _grow(chain, chain_of, large, at_once=job.plan.concurrency),
            _grow(fan, fan_of, large, at_once=1),
        ]

    return measure


def _grow(job: Job, make: Callable[[int], Shape], large: int, *, at_once: int) -> Measurement:
    big, small = make(large), make(SMALL)
    sizes = {"saga": (big, at_once), "celery": (small, round(at_once * big.steps / small.steps))}
    errors: dict[SideName, int] = {"saga": 0, "celery": 0}

    def cost(size: Literal["saga", "celery"]) -> float:
        shape, count = sizes[size]
        outcome = job.arena.work(job.arena.starter("saga", shape), count, steps=shape.steps)
        errors["saga"] += outcome.errors
        return 1000 / outcome.rate

    job.arena.work(job.arena.starter("saga", small), WARM_UP, steps=small.steps)
    pairs = job.in_turns(cost, "ms/step")
    detail = {"small": SMALL, "large": large}
    return job.found(pairs, against="base", unit="ms/step", errors=errors, detail=detail)
