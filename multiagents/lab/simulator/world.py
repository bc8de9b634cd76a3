"""What do all processes of a simulated system share?

Time, chance, the faults, and what an observer writes down: what was really done, which reports
the engine has taken, and what those who wait were told.
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
"""What a thread does."""


@dataclass(frozen=True, slots=True)
class Sleep(effects.Effect[None]):
    """Effect: nothing for this long."""

    ms: int


@dataclass(frozen=True, slots=True)
class Take(effects.Effect[Any]):
    """Effect: the next message, when there is one; None if it was lost on its way."""


@dataclass(eq=False, slots=True)
class Thread:
    """One flow of a process, between two of its yields."""

    life: Life
    wake_ms: int = 0
    effect: Any = None
    """Yielded, but not carried out: its process froze, or there is no message to take."""
    reply: Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class World:
    """What all processes share."""

    rng: Random
    settings: Settings
    now_ms: int = 1_700_000_000_000
    faults: Faults = NO_FAULTS
    slots: int = 0
    """How many steps a queue's workers are said to do at once; 0: nobody says."""
    wide: int = 20
    """Sagas with more steps are caught up with by their log."""
    mixed: Random | None = None
    """Draws which functions each process lacks, but for the first one; None: all have all."""
    batch: int = 100
    """How many due items a sweep takes."""
    skill: float = 0.8
    """How often a worker succeeds."""
    seen: Counter[str] = field(default_factory=Counter)
    """What was injected, by name."""
    ledger: dict[str, dict[str, list[WorkerEffect]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    """By saga and step: what was really done."""
    ends: dict[str, list[SagaOutcome]] = field(default_factory=lambda: defaultdict(list))
    owed: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """By saga: the task ids whose start was confirmed."""
    told: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    reports: dict[str, list[Report]] = field(default_factory=lambda: defaultdict(list))
    """By saga: what the engine has said it has taken down."""
    canvases: dict[str, dict[str, list[int]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    """By saga and target of a canvas: when it was told, Unix ms."""
    alone: bool = False
    """Whether the steps of worker ``b`` have to be messages of their own."""
    is_picky: bool = True
    """Whether Celery refuses to send some targets."""
    begun: dict[str, list[Assignment]] = field(default_factory=lambda: defaultdict(list))
    """By saga: what worker functions were called with."""
    plain: dict[str, Succeeded | Failed] = field(default_factory=dict)
    """How each plain task ended, by the nonce of its claim."""

    def nonce(self) -> str:
        """As `ids.nonce`, from the seed."""
        return f"{self.rng.getrandbits(64):016x}"

    def happens(self, probability: float, what: str) -> bool:
        """Whether a fault strikes now; counted if it does."""
        if probability <= 0 or self.rng.random() >= probability:
            return False
        self.seen[what] += 1
        return True

    def act(self, held: Assignment | Attempt) -> None:
        """Whoever holds this attempt does to the world what it is for."""
        self.ledger[held.saga_id][held.step].append(WorkerEffect(Kind(held.kind), held.nonce))


@dataclass(slots=True)
class ProcessClock:
    """The world's time as one process sees it."""

    world: World
    skew_ms: int

    def now_ms(self) -> int:
        return self.world.now_ms + self.skew_ms
