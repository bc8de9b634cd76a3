"""Which sagas wait for an operator, and for what?

Each shard has two indexes for this: the sagas that ask for attention, by the time since when, and
the paused ones, by their creation.  Each is read oldest first, and no further than the limit.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from typing import Any

from multiagents.core.clock import Clock
from multiagents.core.exceptions import DamagedSaga, UnknownSaga
from multiagents.core.settings import Settings
from multiagents.core.states import SagaState
from multiagents.engine.repository import Repository
from multiagents.operations.attention_cases import KINDS, PAUSED, Awaited, Case, OfKind, damaged
from multiagents.operations.explain.read import Explainer
from multiagents.operations.projection import DAMAGED
from multiagents.operations.queries import Rows
from multiagents.operations.removal import Removal
from multiagents.saga.dead_letters import dead_letters_of
from multiagents.storage import dead_letter_index
from multiagents.storage.keys import all_shards

PAGE = 500
"""How many members of an index one call reads."""
LOOKED_AT = 100
"""How many of the newest sagas of each state are checked for damage, which no index has."""
MAY_WAIT = 100
"""The default number of rows."""


class Attention:
    """Lists what waits for an operator."""

    def __init__(
        self,
        repository: Repository,
        *,
        explainer: Explainer,
        removal: Removal,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._repository = repository
        self._explainer = explainer
        self._removal = removal
        self._settings = settings
        self._clock = clock

    async def attention(self, *, limit: int | None = MAY_WAIT) -> Rows:
        """What waits for an operator in all sagas, the longest first; ``limit`` None: all of it.

        A row is a parked step (``kind`` ``step``) or undo (``undo``), or a saga: one that is
        ``paused`` or ``damaged``, one that was ``terminated`` and left effects, one with a callback
        of its ``end`` that Celery refuses, or one with another ``note``.  A row has
        ``transaction_id``, ``workflow``, ``state``, ``step``, ``since``, ``age_s``, ``reason``,
        ``by`` and ``why`` (the operator who paused or terminated it, and the reason given), and
        ``commands``, the likely one first.  A damaged saga has no ``since`` and comes first.
        """
        broken = await self._removal.damaged(range(self._settings.shards), each=LOOKED_AT)
        rows: Rows = []
        for shard in all_shards(self._settings.shards):
            for index, kinds in ((shard.attention, KINDS), (shard.state(SagaState.PAUSED), PAUSED)):
                rows += await self._of_index(index, kinds, limit, broken)
        now_ms = self._clock.now_ms()
        rows += [
            damaged(saga_id, (why,)).row(saga_id, "", DAMAGED, now_ms=now_ms)
            for saga_id, why in broken.items()
        ]
        rows.sort(key=lambda row: row["since"] or "")
        return rows[:limit]

    async def _of_index(
        self, index: str, kinds: Iterable[OfKind], limit: int | None, broken: dict[str, str]
    ) -> Rows:
        """The rows of one index, whose scores are no later than the times of its rows."""
        rows: Rows = []
        times: list[int] = []
        offset = 0
        while True:
            page = await dead_letter_index.waiting(index, until_ms=None, offset=offset, limit=PAGE)
            for saga_id, since_ms in page:
                if limit is not None and len(times) >= limit and since_ms > times[limit - 1]:
                    return rows
                for found, row in await self._of_saga_in(saga_id, since_ms, kinds, broken):
                    insort(times, found.since_ms)
                    rows.append(row)
            offset += PAGE
            if len(page) < PAGE:
                return rows

    async def _of_saga_in(
        self, saga_id: str, since_ms: float, kinds: Iterable[OfKind], broken: dict[str, str]
    ) -> list[tuple[Awaited, dict[str, Any]]]:
        if saga_id in broken:
            return []
        try:
            saga, workflow = await self._repository.current(saga_id)
        except UnknownSaga:
            return []
        except DamagedSaga as error:
            broken[saga_id] = "; ".join(error.problems)
            return []
        asked = None
        if saga.terminated or saga.state is SagaState.PAUSED:
            asked = await self._explainer.asked(self._repository.keys(saga_id), saga, workflow)
        is_changed = any(dead_letters_of(saga)) and await self._explainer.is_changed(workflow)
        case = Case(saga, workflow, int(since_ms), asked, is_changed)
        now_ms = self._clock.now_ms()
        found = [each for kind in kinds for each in kind(case)]
        name, state = saga.workflow, saga.state.value
        return [(each, each.row(saga_id, name, state, now_ms=now_ms)) for each in found]
