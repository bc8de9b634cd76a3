"""Which sagas are damaged, and how is one taken away?

A saga is damaged where its keys are partly missing, of another type, or cannot be read: an older
engine, a hand or another program did that.  Nothing moves it any more, and nothing can be undone by
what is left of it; so it is taken away whole, when a person says so.
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
    """Finds and takes away what is damaged."""

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
        """Take away a damaged saga: its keys, what is due of it, and all that lists it.

        Nothing is undone, and who waits for its outcome gets none.  Afterwards its idempotency key
        starts a new saga.  Gives its ``transaction_id``, ``problems`` (what was damaged) and how
        many ``keys`` were left of it.  Raises UnknownSaga if nothing is, and NotAllowed for a saga
        that is whole.
        """
        problems = await self._problems(saga_id)
        if not problems:
            raise NotAllowed(
                f"saga {saga_id!r} is whole, and only a damaged one can be removed; to end it use"
                " cancel or terminate: it is removed when its retention is over"
            )
        keys = self._repository.keys(saga_id)
        traces = await damage.find(keys)
        now_ms = self._clock.now_ms()
        count = await damage.remove(keys, traces, now_ms=now_ms)
        # A sweep or a worker may have been at it.
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
        """What is damaged of a saga, or that it is listed and gone; raises UnknownSaga."""
        found = await damage.examine(self._repository.keys(saga_id))
        if not found.there and found.listed:
            return ("it is listed, and nothing of it is there",)
        try:
            await self._queries.sound(saga_id)
        except DamagedSaga as error:
            return error.problems
        return ()

    async def damaged(self, shards: Iterable[int], *, each: int) -> dict[str, str]:
        """Those that are damaged, by id, and what is.

        Looked at are the sagas that sweeps try in vain to move, and the newest ``each`` of each
        state.
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
        """The sagas of a shard's due members that sweeps have tried in vain."""
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
