"""What is done to the system, and when?

Values only: the same plan, seed included, always gives the same schedule.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

CONCURRENCY = 3
"""Steps that each worker process runs at once."""
ATTEMPTS = 6
"""Roughly what a saga of the shop takes, its retries and undos counted."""
BUSY = 0.5
"""How much of their time the workers should be in the middle of a step."""
LEAST_STEP_S, MOST_STEP_S = 0.005, 1.0
FREEZE_LEASES = (1.5, 2.5)
"""A frozen worker is woken after so many leases: by then its steps are somebody else's."""
DOWN_LEASES = (0.1, 1.5)
"""A killed server is brought back after so many leases."""


class FaultKind(StrEnum):
    """What can be done to the system; the words are those of the report."""

    KILL_CHILD = "kill child"
    """SIGKILL of one child of a prefork worker."""
    KILL_MAIN = "kill main"
    """SIGKILL of a worker's main process alone: its children are orphans."""
    KILL_ALL = "kill all"
    """SIGKILL of a worker with its children, as the loss of a host would."""
    PAUSE = "pause"
    """SIGSTOP of a worker with its children for longer than the lease, then SIGCONT."""
    KILL_SERVER = "kill server"
    """SIGKILL of the server, which comes back on the same data."""
    CUT = "cut"
    """The server closes half of the connections that it has."""


KILLS = (FaultKind.KILL_CHILD, FaultKind.KILL_MAIN, FaultKind.KILL_ALL)
"""What a kill of a worker is, in turns."""


@dataclass(frozen=True, slots=True)
class ChaosPlan:
    """How much of everything.  ``keep``: where data and logs stay; None: nowhere."""

    seconds: float = 60.0
    sagas: int = 300
    workers: int = 4
    kills: int = 6
    pauses: int = 2
    server_kills: int = 2
    cuts: int = 2
    seed: int = 0
    lease_s: float = 3.0
    settle_s: float = 120.0
    keep: Path | None = None

    @property
    def step_s(self) -> float:
        """The mean time of a step, with which the workers are `BUSY`."""
        slots = self.workers * CONCURRENCY
        fitting = BUSY * slots * self.seconds / (self.sagas * ATTEMPTS)
        return min(MOST_STEP_S, max(LEAST_STEP_S, fitting))

    @property
    def asked(self) -> dict[FaultKind, int]:
        """How many faults of each kind."""
        kills = {kind: len(range(turn, self.kills, len(KILLS))) for turn, kind in enumerate(KILLS)}
        return {
            **kills,
            FaultKind.PAUSE: self.pauses,
            FaultKind.KILL_SERVER: self.server_kills,
            FaultKind.CUT: self.cuts,
        }


@dataclass(frozen=True, slots=True, order=True)
class Planned:
    """One fault to come.  ``lasts_s``: of a pause, and of a server's absence."""

    at_s: float
    kind: FaultKind
    lasts_s: float = 0.0


def schedule(plan: ChaosPlan) -> list[Planned]:
    """All faults in the order of their times; each kind is spread over the whole run."""
    chance = random.Random(f"faults {plan.seed}")
    found = [
        Planned(
            plan.seconds * (number + chance.random()) / count, kind, _lasts_s(kind, plan, chance)
        )
        for kind, count in plan.asked.items()
        for number in range(count)
    ]
    return sorted(found)


def _lasts_s(kind: FaultKind, plan: ChaosPlan, chance: random.Random) -> float:
    leases = {FaultKind.PAUSE: FREEZE_LEASES, FaultKind.KILL_SERVER: DOWN_LEASES}.get(kind)
    return plan.lease_s * chance.uniform(*leases) if leases else 0.0
