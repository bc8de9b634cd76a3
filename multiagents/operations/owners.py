"""Which saga has this id?

A saga is found by its own id and by every Celery id that it owns: those of its starts, and those
of the messages of its steps and compensations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from multiagents.core import ids
from multiagents.core.effects import Flow
from multiagents.core.exceptions import UnknownSaga
from multiagents.core.settings import Settings
from multiagents.core.states import Kind
from multiagents.engine.repository import Repository
from multiagents.storage import aliases
from multiagents.storage.client import UNREACHABLE
from multiagents.storage.keys import all_shards


@dataclass(frozen=True, slots=True)
class Owner:
    """The saga of a Celery id."""

    saga_id: str
    step: str = ""
    """The step whose message has the id; empty: a start has it."""


class HasOwners(Protocol):
    """A part of the service that finds sagas by any of their ids."""

    @property
    def owners(self) -> Owners:
        """Finds the saga of a Celery id."""


P = ParamSpec("P")
T = TypeVar("T")
Face = TypeVar("Face", bound=HasOwners)


def by_any_id(
    operation: Callable[Concatenate[Face, str, P], Flow[T]],
) -> Callable[Concatenate[Face, str, P], Flow[T]]:
    """The operation, also for the ids of a saga's starts and of its steps' messages.

    The saga's own id costs no further call.
    """

    @wraps(operation)
    async def asked(self: Face, saga_id: str, *args: P.args, **kwargs: P.kwargs) -> T:
        text = known_text(saga_id)
        try:
            return await operation(self, text, *args, **kwargs)
        except UnknownSaga:
            owner = await self.owners.owner(text)
            if owner is None:
                raise
        return await operation(self, owner.saga_id, *args, **kwargs)

    return asked  # type: ignore[return-value]  # which also takes the id by its name


def known_text(given: object) -> str:
    """An id as text.  Raises UnknownSaga for a value that no saga can have as its id."""
    text = ids.as_text(given)
    if text is None or not ids.is_encodable(text):
        raise UnknownSaga(f"no saga {given!a}: an id is text, a UUID or an int")
    return text


class Owners:
    """Finds the saga of a Celery id."""

    def __init__(self, repository: Repository, *, settings: Settings) -> None:
        self._repository = repository
        self._settings = settings

    async def owner(self, task_id: str) -> Owner | None:
        """The saga of a Celery id other than its own id; None if no saga has it."""
        found = await self._owner_of_step(task_id)
        return found or await self._owner_of_start(task_id)

    async def _owner_of_step(self, task_id: str) -> Owner | None:
        saga_id = ids.saga_of(task_id)
        if saga_id is None:
            return None
        try:
            saga, _ = await self._repository.current(saga_id)
        except UnknownSaga:
            return None
        for name, run in saga.steps.items():
            for kind in Kind:
                for attempt in range(run.of(kind).attempt, 0, -1):
                    if ids.step_id(saga_id, kind, name, attempt) == task_id:
                        return Owner(saga_id, name)
        return None

    async def _owner_of_start(self, task_id: str) -> Owner | None:
        """The saga of a start's id.  Raises the error of a server that is away, if no other
        server has the id.
        """
        away: Exception | None = None
        for shard in all_shards(self._settings.shards):
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
