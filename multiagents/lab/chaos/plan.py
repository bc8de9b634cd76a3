"""Which faults does a run inject, and when?

Values only: the same plan with the same seed always gives the same schedule.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

CONCURRENCY = 3
"""Steps that each worker process runs at once."""
ATTEMPTS = 6
"""Roughly the attempts of one saga of the shop, with its retries and undos."""
BUSY = 0.5
"""The share of time in which a worker's slots should be busy with steps."""
LEAST_STEP_S, MOST_STEP_S = 0.005, 1.0
FREEZE_LEASES = (1.5, 2.5)
"""Least and most leases until a frozen worker continues: another worker then has its steps."""
DOWN_LEASES = (0.1, 1.5)
"""Least and most leases until a killed server restarts."""


class FaultKind(StrEnum):
    """The kinds of faults; the report uses these words."""

    KILL_CHILD = "kill child"
    """SIGKILL of one child of a prefork worker."""
    KILL_MAIN = "kill main"
    """SIGKILL of a worker's main process alone: its children are orphans."""
    KILL_ALL = "kill all"
    """SIGKILL of a worker with its children, as the loss of a host would."""
    PAUSE = "pause"
    """SIGSTOP of a worker with its children for longer than the lease, then SIGCONT."""
    KILL_SERVER = "kill server"
    """SIGKILL of the server, which restarts on the same data."""
    CUT = "cut"
    """The server closes half of its connections."""


KILLS = (FaultKind.KILL_CHILD, FaultKind.KILL_MAIN, FaultKind.KILL_ALL)
"""The kinds of a worker's kill, in turn."""


@dataclass(frozen=True, slots=True)
class ChaosPlan:
    """The options of a run.  ``keep``: the folder for data and logs; None: they are deleted."""

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
        """The mean seconds of a step, at which the workers are `BUSY`."""
        slots = self.workers * CONCURRENCY
        fitting = BUSY * slots * self.seconds / (self.sagas * ATTEMPTS)
        return min(MOST_STEP_S, max(LEAST_STEP_S, fitting))

    @property
    def asked(self) -> dict[FaultKind, int]:
        """How many faults of each kind are asked for."""
        kills = {kind: len(range(turn, self.kills, len(KILLS))) for turn, kind in enumerate(KILLS)}
        return {
            **kills,
            FaultKind.PAUSE: self.pauses,
            FaultKind.KILL_SERVER: self.server_kills,
            FaultKind.CUT: self.cuts,
        }


@dataclass(frozen=True, slots=True, order=True)
class Planned:
    """A planned fault.  ``lasts_s``: how long a worker is frozen or the server is down."""

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
