"""How soon does a step continue after its worker was killed?

Each round kills the step's worker with all its children while another worker is idle.  The rounds
kill at different moments between two renewals of the lease.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import datetime
from statistics import median

from multiagents.cli.worker_process import WorkerProcess
from multiagents.lab.bench.job import Job
from multiagents.lab.bench.leases import LEASE_S, leased_worker
from multiagents.lab.bench.measurement import Measurement
from multiagents.lab.bench.shapes import held_once
from multiagents.lab.bench.speed import Measure

STEP = "hold"
PATIENCE_S = 120.0


def recovery(lease_s: float = LEASE_S) -> Measure:
    """Seconds from the death of a worker to the next attempt of its step."""

    def measure(job: Job) -> list[Measurement]:
        took, rounds = [], job.plan.rounds
        with ExitStack() as stack:
            alive = [_ready(job, stack, 0, lease_s)]
            for number in range(1, rounds + 1):
                alive.append(_ready(job, stack, number, lease_s))
                took.append(_kill_one(job, alive, lease_s / 3 * number / rounds))
                job.say(f"{job.name} {number}/{rounds}: {took[-1]:.2f} s")
        detail = {"lease_s": lease_s, "longest_s": max(took), "shortest_s": min(took)}
        return [job.alone(median(took), unit="s", detail=detail)]

    return measure


def _ready(job: Job, stack: ExitStack, number: int, lease_s: float) -> WorkerProcess:
    worker = stack.enter_context(leased_worker(f"bench-hold-{number}", 1, lease_s))
    worker.wait_ready(job.arena.session)
    return worker


def _kill_one(job: Job, alive: list[WorkerProcess], after_s: float) -> float:
    """Kill the step's worker ``after_s`` into it; the seconds until another worker claims it."""
    session = job.arena.session
    saga_id = session.call("start", held_once(), {})

    def begun() -> list[tuple[str, float]]:
        """The worker of each claim of the step, and its Unix time in seconds."""
        return [
            (row["worker"], datetime.fromisoformat(row["at"]).timestamp())
            for row in session.call("history", saga_id)
            if row["type"] == "step_claimed"
        ]

    job.arena.until(lambda: len(begun()) == 1, "the step to begin", PATIENCE_S)
    ((name, _),) = begun()
    holder = next(worker for worker in alive if worker.hostname == name)
    time.sleep(after_s)
    killed_at = session.now_ms / 1000
    holder.kill()
    alive.remove(holder)
    job.arena.until(lambda: len(begun()) == 2, "the step to begin again", PATIENCE_S)
    return begun()[1][1] - killed_at
