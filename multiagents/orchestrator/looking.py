"""What can be seen of sagas?  Reads only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from multiagents.core.clock import Clock
from multiagents.core.entries import decode
from multiagents.core.exceptions import UnknownSaga
from multiagents.core.settings import Settings
from multiagents.core.states import SagaState
from multiagents.orchestrator.coordinator import Coordinator
from multiagents.orchestrator.describe import describe, person_awaited, replay
from multiagents.storage import sagas as store
from multiagents.storage.calls import Flow, ask
from multiagents.storage.keys import Shard
from multiagents.storage.waiting import Ages

Rows = list[dict[str, Any]]


class Looking:
    """Shows sagas; each method is a flow."""

    def __init__(self, coordinator: Coordinator, *, settings: Settings, clock: Clock) -> None:
        self.coordinator = coordinator
        self._settings = settings
        self._clock = clock

    @property
    def _shards(self) -> list[Shard]:
        return [Shard(number) for number in range(self._settings.shards)]

    def get(self, saga_id: str) -> Flow[dict[str, Any]]:
        """A saga as JSON-safe data; see docs/reference.md for its shape.  Raises UnknownSaga."""
        saga, workflow = yield from self.coordinator.current(saga_id)
        data = yield from ask(store.data(self.coordinator.keys(saga_id)))
        return describe(saga, workflow, data)

    def is_known(self, saga_id: str) -> Flow[bool]:
        """Whether there is such a saga."""
        return (yield from ask(store.pinned(self.coordinator.keys(saga_id)))) is not None

    def person_awaited(self, saga_id: str) -> Flow[str]:
        """Why a saga waits for a person; empty if it does not, or is not there."""
        try:
            saga, workflow = yield from self.coordinator.current(saga_id)
        except UnknownSaga:
            return ""
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

        Of all shards: where one's server does not answer, nothing is listed instead of a part.
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
            saga, workflow = yield from self.coordinator.current(saga_id)
        except LookupError:
            return None
        meta = yield from self.coordinator.meta(self.coordinator.keys(saga_id))
        row = describe(saga, workflow, {"meta": json.dumps(meta)})
        for name in ("input", "step_results", "result"):
            row.pop(name)
        return {**row, "tags": meta.get("tags", [])}

    def history(self, saga_id: str) -> Flow[Rows]:
        """What happened, oldest first, replayed from the log: entries and what they moved."""
        _, workflow = yield from self.coordinator.current(saga_id)
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
    return (
        (not state or row["state"] == state)
        and (not workflow or row["workflow"] == workflow)
        and (not tag or tag in row["tags"])
    )
