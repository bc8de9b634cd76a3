"""What can be seen of sagas?  Reads only.

A saga is found by its own id, and by every Celery id that it owns: of its starts, and of the
messages of its steps and compensations.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from operator import itemgetter
from typing import Any, Concatenate, ParamSpec, TypeVar

from multiagents.core import ids
from multiagents.core.clock import Clock
from multiagents.core.entries import decode
from multiagents.core.exceptions import DamagedSaga, UnknownSaga
from multiagents.core.settings import Settings
from multiagents.core.states import Kind, SagaState
from multiagents.orchestrator.coordinator import Coordinator
from multiagents.orchestrator.describe import (
    DAMAGED,
    damaged_row,
    describe,
    person_awaited,
    replay,
)
from multiagents.orchestrator.saga import Saga
from multiagents.orchestrator.workflow import Workflow
from multiagents.storage import aliases
from multiagents.storage import sagas as store
from multiagents.storage.calls import Flow, ask
from multiagents.storage.client import UNREACHABLE
from multiagents.storage.keys import Shard
from multiagents.storage.waiting import Ages

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
    def asked(self: Face, saga_id: str, *args: P.args, **kwargs: P.kwargs) -> Flow[T]:
        text = known_text(saga_id)
        try:
            return (yield from operation(self, text, *args, **kwargs))
        except UnknownSaga:
            owner = yield from self.owner(text)
            if owner is None:
                raise
        return (yield from operation(self, owner.saga_id, *args, **kwargs))

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

    def owner(self, task_id: str) -> Flow[Owner | None]:
        """The saga of a Celery id that is not the saga's own; None if there is none."""
        found = yield from self._owner_of_step(task_id)
        return found or (yield from self._owner_of_start(task_id))

    def _owner_of_step(self, task_id: str) -> Flow[Owner | None]:
        saga_id = ids.saga_of(task_id)
        if saga_id is None:
            return None
        try:
            saga, _ = yield from self.coordinator.current(saga_id)
        except UnknownSaga:
            return None
        for name, run in saga.steps.items():
            for kind in Kind:
                for attempt in range(run.of(kind).attempt, 0, -1):
                    if ids.step_id(saga_id, kind, name, attempt) == task_id:
                        return Owner(saga_id, name)
        return None

    def _owner_of_start(self, task_id: str) -> Flow[Owner | None]:
        """Raises the error of a server that is away, if no other one knows the id."""
        away: Exception | None = None
        for shard in self._shards:
            try:
                saga_id = yield from ask(aliases.owner(shard, task_id))
            except UNREACHABLE as error:
                away = error
                continue
            if saga_id is not None:
                return Owner(saga_id)
        if away is not None:
            raise away
        return None

    @by_any_id
    def get(self, saga_id: str) -> Flow[dict[str, Any]]:
        """A saga as JSON-safe data; see docs/reference.md for its shape.

        Raises UnknownSaga, and DamagedSaga for one whose keys are not what they have to be.
        """
        saga, workflow = yield from self.sound(saga_id)
        data = yield from ask(store.data(self.coordinator.keys(saga_id)))
        return describe(saga, workflow, data)

    def sound(self, saga_id: str) -> Flow[tuple[Saga, Workflow]]:
        """The saga as it is now, if all of its keys are in order.

        Raises UnknownSaga, and DamagedSaga.
        """
        yield from self.coordinator.check_damage(self.coordinator.keys(saga_id))
        return (yield from self.coordinator.current(saga_id))

    def is_known(self, saga_id: str) -> Flow[bool]:
        """Whether there is such a saga."""
        return (yield from ask(store.pinned(self.coordinator.keys(saga_id)))) is not None

    def person_awaited(self, saga_id: str) -> Flow[str]:
        """Why a saga waits for a person; empty if it does not, or is not there."""
        try:
            saga, workflow = yield from self.coordinator.current(saga_id)
        except UnknownSaga:
            return ""
        except DamagedSaga as error:
            return str(error)
        return person_awaited(describe(saga, workflow, {}))

    def list(
        self,
        *,
        state: str | None = None,
        workflow: str | None = None,
        tag: str | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> Flow[Rows]:
        """Sagas, newest first, as `get` gives them but without input and results.

        One that is damaged has the state ``damaged``, and its attention says what is; it is left
        out where a ``state`` is asked for.  Of all shards: where one's server does not answer,
        nothing is listed instead of a part.
        """
        indexes = [_index(shard, state, workflow, tag) for shard in self._shards]
        rows: Rows = []
        for saga_id in (yield from self._newest(indexes, offset, limit)):
            row = yield from self._row(saga_id)
            if row and _matches(row, state, workflow, tag):
                rows.append(row)
        return rows

    def _newest(self, indexes: Sequence[str], offset: int, limit: int) -> Flow[Sequence[str]]:
        """A page of all these indexes together; any part of it may come from any one of them."""
        if len(indexes) == 1:
            return (yield from ask(store.ids(indexes[0], offset=offset, limit=limit)))
        found: Ages = []
        for index in indexes:
            found += yield from ask(store.ages(index, limit=offset + limit))
        found.sort(key=itemgetter(1), reverse=True)
        return [saga_id for saga_id, _ in found[offset : offset + limit]]

    def _row(self, saga_id: str) -> Flow[dict[str, Any] | None]:
        try:
            saga, workflow = yield from self.sound(saga_id)
        except UnknownSaga:
            return None
        except DamagedSaga as error:
            return damaged_row(saga_id, error.problems)
        meta = yield from self.coordinator.meta(self.coordinator.keys(saga_id))
        row = describe(saga, workflow, {"meta": json.dumps(meta)})
        for name in ("input", "step_results", "result", "task_ids"):
            row.pop(name)
        return {**row, "tags": meta.get("tags", [])}

    @by_any_id
    def history(self, saga_id: str) -> Flow[Rows]:
        """What happened, oldest first, replayed from the log: entries and what they moved."""
        _, workflow = yield from self.sound(saga_id)
        keys = self.coordinator.keys(saga_id)
        log = yield from ask(store.log(keys))
        data = yield from ask(store.data(keys))
        return replay(saga_id, workflow, [decode(text) for text in log], data)


def _index(shard: Shard, state: str | None, workflow: str | None, tag: str | None) -> str:
    if tag:
        return shard.labelled(tag)
    if workflow:
        return shard.workflow(workflow)
    if state:
        return shard.state(SagaState(state))
    return shard.sagas


def _matches(row: dict[str, Any], state: str | None, workflow: str | None, tag: str | None) -> bool:
    if row["state"] == DAMAGED:  # what else it is cannot be told: it stood in the index
        return not state
    return (
        (not state or row["state"] == state)
        and (not workflow or row["workflow"] == workflow)
        and (not tag or tag in row["tags"])
    )
