"""Which sagas are damaged, and how is one removed?

The keys of a damaged saga are partly missing, have another type, or cannot be read.  An older
engine, an operator or another program has caused it.  No worker can move it or undo its steps.  So
an operator can remove it as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import structlog

from multiagents.core.clock import Clock
from multiagents.core.exceptions import DamagedSaga, NotAllowed, UnknownSaga
from multiagents.core.settings import Settings
from multiagents.core.states import SagaState
from multiagents.engine.repository import Repository
from multiagents.operations.actions import operator_name
from multiagents.operations.queries import Queries
from multiagents.storage import damage, failures
from multiagents.storage import keys as k
from multiagents.storage import sagas as store
from multiagents.storage.keys import Shard

log = structlog.get_logger(__name__)


class Removal:
    """Finds and removes damaged sagas."""

    def __init__(
        self, repository: Repository, *, queries: Queries, settings: Settings, clock: Clock
    ) -> None:
        self._repository = repository
        self._queries = queries
        self._settings = settings
        self._clock = clock

    async def remove(
        self, saga_id: str, *, by: str | None = None, reason: str = ""
    ) -> dict[str, Any]:
        """Remove a damaged saga: its keys, its due members and its entries in indexes.

        Nothing is undone, and its waiters get no outcome.  Afterwards its idempotency key starts a
        new saga.  Returns its ``transaction_id``, ``problems`` (what was damaged) and the number of
        its remaining ``keys``.  Raises UnknownSaga if nothing is left of it, and NotAllowed for a
        saga that is whole.
        """
        problems = await self._problems(saga_id)
        if not problems:
            raise NotAllowed(
                f"saga {saga_id!r} is not damaged, and only damaged sagas can be removed; to end it"
                " use cancel or terminate: it is removed after its retention"
            )
        keys = self._repository.keys(saga_id)
        traces = await damage.find(keys)
        now_ms = self._clock.now_ms()
        count = await damage.remove(keys, traces, now_ms=now_ms)
        # A sweep or a worker may have written to it in between.
        found = await damage.find(keys)
        count += await damage.remove(keys, found, now_ms=now_ms, again=True)
        about = {
            "problems": list(problems),
            "by": operator_name(self._settings, by),
            "reason": reason,
        }
        log.warning("a damaged saga is removed", saga=saga_id, **about)
        return {"transaction_id": saga_id, "problems": list(problems), "keys": count}

    async def _problems(self, saga_id: str) -> tuple[str, ...]:
        """The damage of a saga, or that an index lists it without a key.  Raises UnknownSaga."""
        found = await damage.examine(self._repository.keys(saga_id))
        if not found.there and found.listed:
            return ("it is listed, and nothing of it is there",)
        try:
            await self._queries.sound(saga_id)
        except DamagedSaga as error:
            return error.problems
        return ()

    async def damaged(self, shards: Iterable[int], *, each: int) -> dict[str, str]:
        """The damaged sagas of these shards, by id, each with its damage.

        Only two groups are checked: sagas that sweeps fail to move, and the newest ``each`` of
        each state.
        """
        found: dict[str, str] = {}
        for shard in map(Shard, shards):
            names = await self._stuck(shard)
            for index in (shard.sagas, *map(shard.state, SagaState)):
                names += await store.ids(index, offset=0, limit=each)
            for saga_id in dict.fromkeys(names):
                found |= await self._damage(saga_id)
        return found

    async def _stuck(self, shard: Shard) -> list[str]:
        """The sagas of a shard's due members on which sweeps have failed."""
        members = await failures.stuck(shard)
        due = [k.parse_due(member) for member in members]
        return [each.owner for each in due if each and each.kind.is_of_a_saga]

    async def _damage(self, saga_id: str) -> dict[str, str]:
        try:
            await self._queries.sound(saga_id)
        except DamagedSaga as error:
            return {saga_id: "; ".join(error.problems)}
        except UnknownSaga:
            return {}
        return {}
