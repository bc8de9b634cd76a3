"""What do clients and operators of a simulated system do?

They are programs in a process of their own, which dies and freezes like any other.  A dead program
runs again or never.  If it never does, an unconfirmed start may have happened or not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from multiagents.core.entries import Requested
from multiagents.core.exceptions import UnknownSaga
from multiagents.core.states import Action
from multiagents.engine.repository import Reading
from multiagents.lab.simulator.broker import SimulatedBroker
from multiagents.lab.simulator.effects import PICKY
from multiagents.lab.simulator.faults import NO_FAULTS
from multiagents.lab.simulator.laws.violations import law
from multiagents.lab.simulator.process import SimulatedProcess
from multiagents.lab.simulator.store import Store
from multiagents.lab.simulator.sweeps import SimulatedSweeper
from multiagents.lab.simulator.workflows import INPUT_TEXT
from multiagents.lab.simulator.world import Life, Sleep, World
from multiagents.saga.dead_letters import dead_letters_of
from multiagents.saga.targets import parked_notes
from multiagents.storage import sagas as store
from multiagents.storage.client import StoreError
from multiagents.workflows.workflow import Workflow

CANVAS = json.dumps(
    {
        "callbacks": [{"task": "ship"}, {"task": PICKY}],
        "errbacks": [{"task": PICKY}, {"task": "sorry"}],
    }
)
"""Of each kind one target that can be sent, and one that Celery refuses."""


class SimulatedOperators(SimulatedProcess):
    """The programs of clients and operators, over one coordinator; it consumes no queue."""

    def __init__(
        self,
        world: World,
        broker: SimulatedBroker,
        kept: Store,
        workflows: Mapping[str, Workflow],
        **makes: Any,
    ) -> None:
        self._workflows, self._rng = workflows, world.rng
        rng = world.rng
        self._starters: list[tuple[str, Callable[[], Life]]] = [
            (name, partial(self._customer, name)) for name in workflows
        ]
        self._starters += [
            (name, partial(self._late_customer, name)) for name in workflows if rng.random() < 0.3
        ]
        self._others: list[Callable[[], Life]] = [
            partial(self._operator, name) for name in workflows if rng.random() < 0.4
        ]
        self._is_dead = False
        super().__init__(world, broker, kept, **makes)

    def start(self) -> None:
        """Run all programs from their beginning."""
        super().start()
        self._is_dead = False

    def _lives(self, sweeps: SimulatedSweeper) -> list[Life]:
        return [begin() for begin in (*(begin for _, begin in self._starters), *self._others)]

    def die(self) -> None:
        """Die; some of the programs do not run again."""
        super().die()
        self._is_dead = True
        self._starters = [each for each in self._starters if self._rng.random() < 0.8]
        self.world.seen["client or operator died"] += 1

    @property
    def is_dead(self) -> bool:
        return self._is_dead

    @property
    def to_start(self) -> set[str]:
        """The sagas whose client has started them or keeps trying."""
        return {name for name, _ in self._starters}

    async def _customer(self, saga_id: str) -> None:
        await Sleep(self._rng.randint(0, 2000))
        await self._start(saga_id, saga_id)
        asks = self._rng.choice((0, 0, 0, 0, 1, 3))
        for _ in range(asks):
            await Sleep(self._rng.choice((0, 200, 2000, 8000)))
            action = self._rng.choice((*Action, Action.PAUSE, Action.CANCEL))
            step = self._rng.choice(("", *self._workflows[saga_id].by_name))
            await self._ask(saga_id, action, step)
        while self.world.faults != NO_FAULTS:
            await Sleep(1000)
        if self._rng.random() < 0.7:
            await self._ask(saga_id, Action.RESUME)

    async def _late_customer(self, saga_id: str) -> None:
        """Start the same saga for another task, at any time."""
        await Sleep(self._rng.choice((0, 3000, 9000, 30_000)))
        await self._start(saga_id, f"{saga_id}-late")

    async def _operator(self, saga_id: str) -> None:
        """Settle dead letters a few times, also after the faults have stopped."""
        for _ in range(self._rng.choice((2, 5, 10))):
            await Sleep(self._rng.choice((300, 1000, 4000)))
            try:
                repository = self.coordinator.repository
                found = await repository.reading(repository.keys(saga_id))
            except (StoreError, UnknownSaga):
                continue
            saga = found.saga
            if parked_notes(saga) and self._rng.random() < 0.5:
                decision = self._rng.choice((Action.RETRY, Action.RESOLVE))
                await self._ask(saga_id, decision, found=found)
            elif letters := list(dead_letters_of(saga)):
                step, _ = self._rng.choice(letters)
                decision = self._rng.choice((Action.RETRY, Action.SKIP, Action.RESOLVE))
                await self._ask(saga_id, decision, step, found=found)

    async def _start(self, saga_id: str, task_id: str) -> None:
        """Start a saga, or join it, until that is confirmed: then its outcome is owed."""
        while not await self._started(saga_id, task_id):
            await Sleep(500)
        self.world.owed[saga_id].add(task_id)

    async def _started(self, saga_id: str, task_id: str) -> bool:
        try:
            await self.coordinator.start(
                self._workflows[saga_id],
                saga_id=saga_id,
                waiting=(task_id, CANVAS if task_id != saga_id else ""),
                data={"input": INPUT_TEXT, "meta": "{}"},
            )
        except StoreError:
            return False
        except UnknownSaga:
            law(self._store.was_set_back(saga_id), f"{saga_id} was stored, but is gone")
            return False
        return True

    async def _ask(
        self, saga_id: str, action: Action, step: str = "", *, found: Reading | None = None
    ) -> None:
        """Request an action.  ``found``: the saga as the operator saw it."""
        request = self.world.nonce()
        # Not drawn from the seed, so that its history stays the same.
        by, reason = ("ada", f"because {request}") if request[-1] in "02468ace" else ("", "")
        entry = Requested(self.clock.now_ms(), action, request, by, reason, step)
        # As if it died before the decision: the next process decides, perhaps a late worker.
        hasty = self._rng.random() < 0.3
        while True:
            try:
                if hasty:
                    await store.append(self.coordinator.repository.keys(saga_id), entry)
                elif found is not None:
                    await self.coordinator.order(found, entry)
                else:
                    await self.coordinator.append(saga_id, entry)
                return
            except UnknownSaga:
                law(self._store.was_set_back(saga_id), f"{saga_id} is gone")
                return
            except StoreError:
                await Sleep(300)
                entry = replace(entry, at_ms=self.clock.now_ms())
