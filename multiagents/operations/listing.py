"""Which sagas fit a filter?

One index (of a tag, a workflow or a state, else of all) is read from the newest saga backwards,
page by page, until enough are found.  One call for each filter removes the sagas of a page that
another index lacks, whose input differs, or whose state lacks the error; only the others are read
whole.  An idempotency key leads to its saga directly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from multiagents.core import ids
from multiagents.core.clock import Clock
from multiagents.core.exceptions import DamagedSaga, InvalidInput, UnknownSaga
from multiagents.core.moments import moment_ms
from multiagents.core.settings import Settings
from multiagents.core.states import SagaState
from multiagents.engine.catalog import Catalog
from multiagents.engine.repository import Repository
from multiagents.operations.projection import DAMAGED, damaged_row, describe
from multiagents.operations.queries import Queries, Rows
from multiagents.operations.saga_filter import Wanted
from multiagents.storage import dead_letter_index, newest_sagas
from multiagents.storage import sagas as store
from multiagents.storage.keys import SagaKeys, Shard, all_shards
from multiagents.storage.newest_sagas import Newest
from multiagents.workflows import registry

PAGE = 100
"""How many sagas are compared between two reports of progress, and their inputs in one reply."""
SKIPPED = 1000
"""How many ids of an offset one call skips."""
Progress = Callable[[int, int], None]
"""Gets the numbers of sagas compared so far, and of those that fit."""
When = str | datetime
Found = list[SagaKeys]
T = TypeVar("T")


class Listing:
    """Lists sagas."""

    def __init__(
        self,
        repository: Repository,
        *,
        queries: Queries,
        settings: Settings,
        clock: Clock,
        catalog: Catalog,
    ) -> None:
        self._repository = repository
        self._queries = queries
        self._settings = settings
        self._clock = clock
        self._catalog = catalog

    async def list(
        self,
        *,
        state: str | None = None,
        workflow: str | None = None,
        tag: str | None = None,
        idempotency_key: str | None = None,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - what the saga calls it
        error: str | None = None,
        since: When | None = None,
        until: When | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> Rows:
        """Sagas, newest first, as `get` shows them but without results.

        ``input``: equal values by key; a dotted key (``customer.id``) leads into objects and
        lists.  ``error``: a part of an error of the saga or of its steps, in any case.  ``since``
        and ``until``: limits of the start, each a datetime or a text such as ``2h`` (ago),
        ``yesterday``, ``2026-11-30T14:05``.  ``limit`` and ``offset`` count fitting sagas.  State,
        workflow, tag and time have indexes, and an ``idempotency_key`` is looked up; inputs and
        errors are compared saga by saga.

        A damaged saga has the state ``damaged``, and its attention says what is damaged; a filter
        for another ``state`` leaves it out.  If the server of a shard is away, its error is raised
        and no part is listed.
        """
        wanted = self.wanted(
            state=state,
            workflow=workflow,
            tag=tag,
            idempotency_key=idempotency_key,
            input=input or {},
            error=error,
            since=since,
            until=until,
        )
        return await self.search(wanted, limit=limit, offset=offset)

    def wanted(self, /, *, since: When | None, until: When | None, **filters: Any) -> Wanted:
        """The filters of a list, checked.  Raises InvalidInput."""
        now_ms = self._clock.now_ms()
        since_ms = None if since is None else moment_ms(since, now_ms, name="since")
        until_ms = None if until is None else moment_ms(until, now_ms, name="until")
        if since_ms is not None and until_ms is not None and until_ms < since_ms:
            raise InvalidInput(
                f"until ({until}) is before since ({since}), so no saga fits; since is the"
                " earlier time"
            )
        return Wanted(**filters, since_ms=since_ms, until_ms=until_ms)

    async def search(
        self,
        wanted: Wanted,
        *,
        limit: int,
        offset: int = 0,
        progress: Progress | None = None,
    ) -> Rows:
        """`list` with reports of progress."""
        if wanted.idempotency_key is not None:
            rows = await self._of_key(wanted, wanted.idempotency_key)
            return rows[offset : offset + limit]
        indexes = [_indexes(shard, wanted)[0] for shard in all_shards(self._settings.shards)]
        newest_ = Newest(indexes, since_ms=wanted.since_ms, until_ms=wanted.until_ms)
        if wanted.is_indexed:
            await _pass(newest_, offset)
            offset = 0
        found: Rows = []
        looked = 0
        while len(found) < offset + limit:
            size = min(PAGE, limit - len(found)) if wanted.is_indexed else PAGE
            page = await newest_.page(size)
            if not page:
                break
            found += await self._fitting(page, wanted, most=offset + limit - len(found))
            looked += len(page)
            if progress:
                progress(looked, len(found))
        return found[offset : offset + limit]

    async def _fitting(self, page: Sequence[str], wanted: Wanted, *, most: int) -> Rows:
        rows: Rows = []
        for saga_id in await self._likely(page, wanted):
            if len(rows) == most:
                break
            row = await self._row(saga_id)
            if row and wanted.fits(row):
                rows.append(row)
        return rows

    async def _likely(self, page: Sequence[str], wanted: Wanted) -> Sequence[str]:
        """The sagas of a page that may fit, by a few calls to each shard."""
        of_shard: dict[Shard, Found] = {}
        for keys in map(self._repository.keys, page):
            of_shard.setdefault(keys.shard, []).append(keys)
        likely: set[str] = set()
        for shard, sagas in of_shard.items():
            sagas = await _indexed(sagas, _indexes(shard, wanted)[1:])
            if wanted.input and sagas:
                sagas = _kept(sagas, wanted.fits_input, await newest_sagas.inputs(sagas))
            if wanted.error and sagas:
                sagas = _kept(sagas, wanted.may_err, await newest_sagas.states(sagas))
            likely.update(keys.id for keys in sagas)
        return [saga_id for saga_id in page if saga_id in likely]

    async def _of_key(self, wanted: Wanted, key: str) -> Rows:
        """The sagas of an idempotency key: one for each known workflow, or for the given one."""
        names = {wanted.workflow} if wanted.workflow else set(registry.registered())
        if not wanted.workflow:
            names |= set(await self._catalog.workflow_names())
        found = [ids.derived_id(name, key) for name in names if name]
        rows = await self._fitting(found, wanted, most=len(found))
        return sorted(filter(wanted.is_in_time, rows), key=_created, reverse=True)

    async def _row(self, saga_id: str) -> dict[str, Any] | None:
        try:
            saga, workflow = await self._queries.sound(saga_id)
        except UnknownSaga:
            return None
        except DamagedSaga as error:
            return damaged_row(saga_id, error.problems)
        call = store.some_data(self._repository.keys(saga_id), ("meta", "input"))
        meta, given = await call
        row = describe(saga, workflow, {"meta": meta or "{}", "input": given or "{}"})
        for name in ("step_results", "result", "task_ids"):
            row.pop(name)
        for step in row["steps"].values():  # a list reads no log, which has these
            for work in filter(None, (step, step["compensation"])):
                work.pop("last_error")
        return row


def _created(row: Mapping[str, Any]) -> str:
    return row["created_at"] or ""


async def _pass(newest_: Newest, count: int) -> None:
    """Skip the newest sagas without reading them."""
    while count > 0:
        page = await newest_.page(min(count, SKIPPED))
        if not page:
            return
        count -= len(page)


def _indexes(shard: Shard, wanted: Wanted) -> Sequence[str]:
    """The indexes of the filters; the first is read, the others only filter its sagas."""
    found = [shard.labelled(wanted.tag)] if wanted.tag else []
    if wanted.workflow:
        found.append(shard.workflow(wanted.workflow))
    if wanted.state and wanted.state != DAMAGED:
        found.append(shard.state(SagaState(wanted.state)))
    return found or [shard.sagas]


async def _indexed(sagas: Found, indexes: Sequence[str]) -> Found:
    """The sagas that all of these indexes list, too."""
    for index in indexes:
        if sagas:
            listed = await dead_letter_index.since(index, [keys.id for keys in sagas])
            sagas = _kept(sagas, lambda at_ms: at_ms is not None, listed)
    return sagas


def _kept(sagas: Found, fits: Callable[[T], bool], values: Sequence[T]) -> Found:
    return [keys for keys, value in zip(sagas, values, strict=True) if fits(value)]
