"""Does a short lease hold on a busy machine?

Steps burn processor time in Python all the time, in more children than there are processors.  No
worker dies meanwhile, so each lost lease is an error.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multiagents.cli.worker_process import WorkerProcess
from multiagents.core.exceptions import NotAllowed
from multiagents.core.names import QUEUE_IO
from multiagents.lab.bench.arena import TASKS, Arena
from multiagents.lab.bench.cpu import idle_seconds
from multiagents.lab.bench.job import Job
from multiagents.lab.bench.measurement import Measurement, SideName
from multiagents.lab.bench.shapes import burning
from multiagents.lab.bench.speed import Measure
from multiagents.storage.client import UNREACHABLE

LEASE_S = 5.0
CHILDREN_PER_CPU = 3
STEP_S = (8.0, 20.0)
"""Least and most seconds of a step; it renews its lease at least five times."""
SAY_S = 30.0
"""Seconds between two lines of progress."""
LAST_WORK_S = 6 * STEP_S[1]
"""How long the last steps may take: several share a processor."""


def leases(lease_s: float = LEASE_S, step_s: tuple[float, float] = STEP_S) -> Measure:
    """Leases lost in error, and late renewals, at full load."""

    def measure(job: Job) -> list[Measurement]:
        cpus = _cpus()
        children = cpus * CHILDREN_PER_CPU
        with leased_worker("bench-burn", children, lease_s) as worker:
            worker.wait_ready(job.arena.session)
            job.say(f"{job.name}: {children} children on {cpus} processors")
            load = _burn(job, worker, children, step_s)
        job.say(f"{job.name}: {load.steps} steps, {load.lost} leases lost, {load.late} late")
        detail = {"lease_s": lease_s, "children": children, "processors": cpus, **load.to_dict()}
        errors: dict[SideName, int] = {"saga": load.failed, "celery": 0}
        return [job.alone(load.lost, unit="lost", detail=detail, errors=errors)]

    return measure


@dataclass(slots=True)
class _Load:
    """The counts under load.

    ``late``: renewals after two thirds of a lease.  ``silent``: reads without an answer.
    """

    seconds: float = 0.0
    busy: float | None = None
    """The share of time in which the machine's processors were busy."""
    steps: int = 0
    lost: int = 0
    late: int = 0
    silent: int = 0
    failed: int = 0
    waiting: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        names = ("seconds", "busy", "steps", "late", "silent")
        return {name: getattr(self, name) for name in names}


def _burn(job: Job, worker: WorkerProcess, children: int, step_s: tuple[float, float]) -> _Load:
    """Keep all children busy for the plan's minutes; as many sagas again wait for them."""
    load, chance, workflow = _Load(), random.Random(0), burning()
    began = said = time.monotonic()
    idle = idle_seconds()
    while (passed := time.monotonic() - began) < job.plan.minutes * 60:
        while len(load.waiting) < 2 * children:
            given = {"seconds": chance.uniform(*step_s)}
            load.waiting.append(str(job.arena.session.call("start", workflow, given)))
        _reap(job.arena, load)
        if time.monotonic() - said >= SAY_S:
            said = time.monotonic()
            job.say(f"{job.name}: {passed:.0f} s, {load.steps} steps, {load.lost} leases lost")
        time.sleep(1)
    load.seconds = time.monotonic() - began
    load.busy = _busy(idle, idle_seconds(), load.seconds)
    _finish(job, load)
    late = job.arena.session.run(job.arena.session.runtime.catalog.late())
    load.late = late.get(worker.hostname, 0)
    return load


def _busy(before: float | None, after: float | None, seconds: float) -> float | None:
    if before is None or after is None:
        return None
    return 1 - (after - before) / seconds / (os.cpu_count() or 1)


def _finish(job: Job, load: _Load) -> None:
    """Cancel sagas that have not begun, and wait for the running steps."""
    for saga_id in load.waiting:
        with suppress(NotAllowed):  # it has ended since the last read
            job.arena.session.call("cancel", saga_id, reason="the bench is over")

    def over() -> bool:
        _reap(job.arena, load)
        return not load.waiting

    job.arena.until(over, "the last steps to end", LAST_WORK_S)


def _reap(arena: Arena, load: _Load) -> None:
    """Count the outcomes of the sagas that have ended."""
    running = []
    for saga_id in load.waiting:
        try:
            state = arena.session.call("get", saga_id)["state"]
            kinds = [row["type"] for row in arena.session.call("history", saga_id)]
        except UNREACHABLE:
            load.silent += 1  # the server, or this process, got no processor time
            running.append(saga_id)
            continue
        if state in ("running", "compensating"):
            running.append(saga_id)
            continue
        load.steps += kinds.count("step_succeeded")
        load.lost += kinds.count("step_lost")
        load.failed += state == "failed"
    load.waiting = running


@contextmanager
def leased_worker(name: str, children: int, lease_s: float) -> Iterator[WorkerProcess]:
    """A worker whose steps have leases of ``lease_s``."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        made = WorkerProcess(
            name,
            env={"MULTIAGENTS_IMPORTS": TASKS, "MULTIAGENTS_LEASE_S": str(lease_s)},
            options=("-c", str(children), "-l", "WARNING"),
            queues=(QUEUE_IO,),
            cwd=Path(folder),
            log=Path(folder) / "worker.log",
        )
        with made:
            yield made


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
