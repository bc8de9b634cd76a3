"""What do all processes of a simulated system share?

They share time, chance, the faults, and an observer's records: the real effects, the reports that
the engine has recorded, and the outcomes that waiters got.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from random import Random
from typing import Any

from multiagents.core import effects
from multiagents.core.effects import Flow
from multiagents.core.entries import Failed, Report, Succeeded
from multiagents.core.ports import Assignment
from multiagents.core.settings import Settings
from multiagents.core.states import Kind
from multiagents.lab.simulator.faults import NO_FAULTS, Faults
from multiagents.lab.simulator.laws.end import WorkerEffect
from multiagents.saga.outcome import SagaOutcome
from multiagents.storage.sagas import Attempt

Life = Flow[None]
"""The flow of a thread."""


@dataclass(frozen=True, slots=True)
class Sleep(effects.Effect[None]):
    """Effect: wait for ``ms``."""

    ms: int


@dataclass(frozen=True, slots=True)
class Take(effects.Effect[Any]):
    """Effect: wait for the next message; None if it is lost on its way."""


@dataclass(eq=False, slots=True)
class Thread:
    """One flow of a process, between two of its yields."""

    life: Life
    wake_ms: int = 0
    effect: Any = None
    """Yielded but not performed yet: the process is frozen, or there is no message."""
    reply: Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class World:
    """The state that all processes share."""

    rng: Random
    settings: Settings
    now_ms: int = 1_700_000_000_000
    faults: Faults = NO_FAULTS
    slots: int = 0
    """How many slots a queue's workers publish; 0: none is published."""
    wide: int = 20
    """A process catches up with sagas of more steps by their log."""
    mixed: Random | None = None
    """Draws the functions that each process but the first lacks; None: all have all."""
    batch: int = 100
    """How many due items a sweep takes."""
    skill: float = 0.8
    """The probability that a worker succeeds."""
    seen: Counter[str] = field(default_factory=Counter)
    """The number of faults and their effects, by name."""
    ledger: dict[str, dict[str, list[WorkerEffect]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    """The real effects, by saga and step."""
    ends: dict[str, list[SagaOutcome]] = field(default_factory=lambda: defaultdict(list))
    owed: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """The task ids whose start was confirmed, by saga."""
    told: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    reports: dict[str, list[Report]] = field(default_factory=lambda: defaultdict(list))
    """The reports that the engine has confirmed, by saga."""
    canvases: dict[str, dict[str, list[int]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    """When each target of a canvas was started, in Unix ms, by saga and target."""
    alone: bool = False
    """Whether each step of worker ``b`` must be a message of its own."""
    is_picky: bool = True
    """Whether Celery refuses to send some targets."""
    begun: dict[str, list[Assignment]] = field(default_factory=lambda: defaultdict(list))
    """The assignments that worker functions got, by saga."""
    plain: dict[str, Succeeded | Failed] = field(default_factory=dict)
    """The end of each plain task, by the nonce of its claim."""

    def nonce(self) -> str:
        """Like `ids.nonce`, but drawn from the seed."""
        return f"{self.rng.getrandbits(64):016x}"

    def happens(self, probability: float, what: str) -> bool:
        """Whether a fault strikes now; counted if it does."""
        if probability <= 0 or self.rng.random() >= probability:
            return False
        self.seen[what] += 1
        return True

    def act(self, held: Assignment | Attempt) -> None:
        """Record the effect of this attempt on the world."""
        self.ledger[held.saga_id][held.step].append(WorkerEffect(Kind(held.kind), held.nonce))


@dataclass(slots=True)
class ProcessClock:
    """The world's time, with the error of one process's clock."""

    world: World
    skew_ms: int

    def now_ms(self) -> int:
        return self.world.now_ms + self.skew_ms
