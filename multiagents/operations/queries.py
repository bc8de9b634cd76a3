"""How is a saga read?  Reads only."""

from __future__ import annotations

from typing import Any

from multiagents.core.entries import decode
from multiagents.core.exceptions import DamagedSaga, InvalidInput, UnknownSaga
from multiagents.core.settings import Settings
from multiagents.engine.repository import Repository
from multiagents.operations.earlier_attempts import has_earlier_attempts, last_errors
from multiagents.operations.owners import Owners, by_any_id
from multiagents.operations.projection import describe, person_awaited, replay
from multiagents.saga.state import Saga
from multiagents.storage import dead_letter_index, lookup
from multiagents.storage import sagas as store
from multiagents.storage.keys import all_shards
from multiagents.workflows.workflow import Workflow

MOST_SEARCHED = 1_000_000
"""How many sagas a search for the beginning of an id may compare: 5 s of a server's time."""
MOST_CANDIDATES = 10
"""With more ids than this the search stops."""

Rows = list[dict[str, Any]]


class Queries:
    """Shows sagas; each method is a flow."""

    def __init__(self, repository: Repository, *, owners: Owners, settings: Settings) -> None:
        self.owners = owners
        self._repository = repository
        self._settings = settings

    async def beginning(self, text: str) -> list[str]:
        """The ids that begin with a text; only some of them if there are many.

        For users who type an id; programs give it whole.  Raises InvalidInput if there are too
        many sagas for a search, and the error of a server that is away.
        """
        total = 0
        for shard in all_shards(self._settings.shards):
            total += await dead_letter_index.count(shard.sagas)
        if total > MOST_SEARCHED:
            raise InvalidInput(
                f"no saga has the id {text!r}, and {total} sagas are too many for a search by the"
                f" beginning of an id (at most {MOST_SEARCHED}); give the whole id"
            )
        found: list[str] = []
        for shard in all_shards(self._settings.shards):
            if len(found) <= MOST_CANDIDATES:
                found += await lookup.beginning(shard, text, most=MOST_CANDIDATES)
        return found

    @by_any_id
    async def get(self, saga_id: str) -> dict[str, Any]:
        """A saga as JSON-safe data; see docs/reference/api.md for its shape.

        Raises UnknownSaga, and DamagedSaga for a saga with damaged keys.
        """
        return await self.shown(*await self.sound(saga_id))

    async def shown(self, saga: Saga, workflow: Workflow) -> dict[str, Any]:
        """This saga in the same shape; its log is read only if an attempt came before another."""
        keys = self._repository.keys(saga.id)
        data = await store.data(keys)
        if not has_earlier_attempts(saga):
            return describe(saga, workflow, data)
        entries = [decode(text) for text in await store.log(keys)]
        return describe(saga, workflow, data, last_errors=last_errors(saga, workflow, entries))

    async def sound(self, saga_id: str) -> tuple[Saga, Workflow]:
        """The present state of a saga whose keys are sound.

        Raises UnknownSaga and DamagedSaga.
        """
        await self._repository.check_damage(self._repository.keys(saga_id))
        return await self._repository.current(saga_id)

    async def is_known(self, saga_id: str) -> bool:
        """Whether there is such a saga."""
        return await store.pinned(self._repository.keys(saga_id)) is not None

    async def person_awaited(self, saga_id: str) -> str:
        """Why a saga waits for an operator; empty if it does not wait, or does not exist."""
        try:
            saga, workflow = await self._repository.current(saga_id)
        except UnknownSaga:
            return ""
        except DamagedSaga as error:
            return str(error)
        return person_awaited(describe(saga, workflow, {}))

    @by_any_id
    async def history(self, saga_id: str) -> Rows:
        """The events of a saga, oldest first: its log entries, and the moves that they caused."""
        _, workflow = await self.sound(saga_id)
        keys = self._repository.keys(saga_id)
        log = await store.log(keys)
        data = await store.data(keys)
        return replay(saga_id, workflow, [decode(text) for text in log], data)
