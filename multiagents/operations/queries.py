"""What can be seen of sagas?  Reads only.

A saga is found by its own id, and by every Celery id that it owns: of its starts, and of the
messages of its steps and compensations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from multiagents.core import ids
from multiagents.core.clock import Clock
from multiagents.core.effects import Flow
from multiagents.core.entries import decode
from multiagents.core.exceptions import DamagedSaga, InvalidInput, UnknownSaga
from multiagents.core.settings import Settings
from multiagents.core.states import Kind
from multiagents.engine.coordinator import Coordinator
from multiagents.operations.projection import describe, person_awaited, replay
from multiagents.saga.state import Saga
from multiagents.storage import aliases, dead_letter_index, lookup
from multiagents.storage import sagas as store
from multiagents.storage.client import UNREACHABLE
from multiagents.storage.keys import Shard
from multiagents.workflows.workflow import Workflow

MOST_SEARCHED = 1_000_000
"""Sagas whose ids are compared with the beginning of one: it took 5 s of a server's time."""
MOST_CANDIDATES = 10
"""Beyond so many that fit none is looked for."""

Rows = list[dict[str, Any]]
P = ParamSpec("P")
T = TypeVar("T")
Face = TypeVar("Face", bound="Looking")


@dataclass(frozen=True, slots=True)
class Owner:
    """The saga of a Celery id."""

    saga_id: str
    step: str = ""
    """Whose message has the id; empty: it is a start's."""


def by_any_id(
    operation: Callable[Concatenate[Face, str, P], Flow[T]],
) -> Callable[Concatenate[Face, str, P], Flow[T]]:
    """The same, also for the ids of a saga's starts and of its steps' messages.

    The saga's own id costs nothing more.
    """

    @wraps(operation)
    async def asked(self: Face, saga_id: str, *args: P.args, **kwargs: P.kwargs) -> T:
        text = known_text(saga_id)
        try:
            return await operation(self, text, *args, **kwargs)
        except UnknownSaga:
            owner = await self.owner(text)
            if owner is None:
                raise
        return await operation(self, owner.saga_id, *args, **kwargs)

    return asked  # type: ignore[return-value]  # which also takes the id by its name


def known_text(given: object) -> str:
    """An id to look for, as text.  Raises UnknownSaga for what can be the id of none."""
    text = ids.as_text(given)
    if text is None or not ids.is_encodable(text):
        raise UnknownSaga(f"no saga {given!a}: an id is text, a UUID or an int")
    return text


class Looking:
    """Shows sagas; each method is a flow."""

    def __init__(self, coordinator: Coordinator, *, settings: Settings, clock: Clock) -> None:
        self.coordinator = coordinator
        self._settings = settings
        self._clock = clock

    @property
    def _shards(self) -> list[Shard]:
        return [Shard(number) for number in range(self._settings.shards)]

    async def owner(self, task_id: str) -> Owner | None:
        """The saga of a Celery id that is not the saga's own; None if there is none."""
        found = await self._owner_of_step(task_id)
        return found or await self._owner_of_start(task_id)

    async def _owner_of_step(self, task_id: str) -> Owner | None:
        saga_id = ids.saga_of(task_id)
        if saga_id is None:
            return None
        try:
            saga, _ = await self.coordinator.current(saga_id)
        except UnknownSaga:
            return None
        for name, run in saga.steps.items():
            for kind in Kind:
                for attempt in range(run.of(kind).attempt, 0, -1):
                    if ids.step_id(saga_id, kind, name, attempt) == task_id:
                        return Owner(saga_id, name)
        return None

    async def _owner_of_start(self, task_id: str) -> Owner | None:
        """Raises the error of a server that is away, if no other one knows the id."""
        away: Exception | None = None
        for shard in self._shards:
            try:
                saga_id = await aliases.owner(shard, task_id)
            except UNREACHABLE as error:
                away = error
                continue
            if saga_id is not None:
                return Owner(saga_id)
        if away is not None:
            raise away
        return None

    async def beginning(self, text: str) -> list[str]:
        """The ids of sagas that begin with a text, some of them where there are many.

        For people who type: programs name an id whole.  Raises InvalidInput where there are too
        many sagas to be searched, and the error of a server that is away.
        """
        total = 0
        for shard in self._shards:
            total += await dead_letter_index.count(shard.sagas)
        if total > MOST_SEARCHED:
            raise InvalidInput(
                f"{text!r} is no saga's whole id, and there are {total} sagas, more than the"
                f" {MOST_SEARCHED} that are searched for one that begins so; give the whole id"
            )
        found: list[str] = []
        for shard in self._shards:
            if len(found) <= MOST_CANDIDATES:
                found += await lookup.beginning(shard, text, most=MOST_CANDIDATES)
        return found

    @by_any_id
    async def get(self, saga_id: str) -> dict[str, Any]:
        """A saga as JSON-safe data; see docs/reference/api.md for its shape.

        Raises UnknownSaga, and DamagedSaga for one whose keys are not what they have to be.
        """
        saga, workflow = await self.sound(saga_id)
        data = await store.data(self.coordinator.keys(saga_id))
        return describe(saga, workflow, data)

    async def sound(self, saga_id: str) -> tuple[Saga, Workflow]:
        """The saga as it is now, if all of its keys are in order.

        Raises UnknownSaga, and DamagedSaga.
        """
        await self.coordinator.check_damage(self.coordinator.keys(saga_id))
        return await self.coordinator.current(saga_id)

    async def is_known(self, saga_id: str) -> bool:
        """Whether there is such a saga."""
        return await store.pinned(self.coordinator.keys(saga_id)) is not None

    async def person_awaited(self, saga_id: str) -> str:
        """Why a saga waits for a person; empty if it does not, or is not there."""
        try:
            saga, workflow = await self.coordinator.current(saga_id)
        except UnknownSaga:
            return ""
        except DamagedSaga as error:
            return str(error)
        return person_awaited(describe(saga, workflow, {}))

    @by_any_id
    async def history(self, saga_id: str) -> Rows:
        """What happened, oldest first, replayed from the log: entries and what they moved."""
        _, workflow = await self.sound(saga_id)
        keys = self.coordinator.keys(saga_id)
        log = await store.log(keys)
        data = await store.data(keys)
        return replay(saga_id, workflow, [decode(text) for text in log], data)
