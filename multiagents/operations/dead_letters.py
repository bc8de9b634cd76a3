"""Which steps and undos wait for an operator, and how are many of them settled at once?

Commits keep an index of them, so no other sagas are read.  Each entry is checked against its saga;
a wrong one is left out.  A dead letter leaves the list only by an action in its saga's log, which
has the operator and the reason.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any

from multiagents.core.clock import Clock, iso
from multiagents.core.entries import decode
from multiagents.core.exceptions import DamagedSaga, InvalidInput, NotAllowed, UnknownSaga
from multiagents.core.fields import late_field, parse_dead_letter, result_field
from multiagents.core.settings import Settings
from multiagents.core.states import Action, Kind, StepState
from multiagents.engine.repository import Repository
from multiagents.engine.saga_reader import own_result
from multiagents.operations.actions import Actions, check_reason
from multiagents.operations.explain.late_reports import late_successes
from multiagents.operations.letter_filter import LetterFilter
from multiagents.operations.owners import Owners, by_any_id
from multiagents.operations.queries import Rows
from multiagents.saga.allowed import SETTLING, OneLetter
from multiagents.saga.dead_letters import (
    LETTERS,
    SAGAS,
    dead_letters_of,
    entries_of,
    parked,
    parked_at,
)
from multiagents.saga.state import Saga
from multiagents.storage import dead_letter_index
from multiagents.storage import sagas as store
from multiagents.storage.client import UNREACHABLE, StoreError
from multiagents.storage.keys import Shard, all_shards
from multiagents.workflows.step import worker_name
from multiagents.workflows.workflow import Workflow

KINDS = {"step": Kind.RUN, "undo": Kind.UNDO}
"""The kinds of dead letters by the names that users see."""
_CALLED = {kind: name for name, kind in KINDS.items()}
PAGE = 500
"""How many members of an index one call reads."""
REMEMBERED = 100
"""How many sagas a listing caches: the letters of one saga are often neighbours."""

_LARGE = ("input", "result", "step_results", "late_successes")
"""The fields of a letter that settling does not need."""

Letter = dict[str, Any]
Found = tuple[Saga, Workflow, dict[str, str]]


class DeadLetters:
    """Lists dead letters, and settles many of them by one action."""

    def __init__(
        self,
        repository: Repository,
        *,
        owners: Owners,
        actions: Actions,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self.owners = owners
        self._repository = repository
        self._actions = actions
        self._settings = settings
        self._clock = clock

    async def dead_letters(
        self,
        *,
        saga_id: str | None = None,
        workflow: str | None = None,
        step: str | None = None,
        kind: str | None = None,
        error: str | None = None,
        older_than_s: float | None = None,
        limit: int | None = 100,
    ) -> Rows:
        """Parked steps and undos of all sagas or of one, the longest parked first.

        ``kind``: ``step`` or ``undo``; ``error``: a part of its ``Type: message``, in any case;
        ``limit`` None: all.  With ``saga_id`` the index does not matter, and each letter has three
        more fields.  ``late_successes``: attempts that reported success after they were given up;
        ``result``: for an undo, the result of its step, for a step, that of the first late
        success; ``step_results``: those of the steps before it.

        Raises UnknownSaga for an unknown ``saga_id``.
        """
        wanted = self._filter(workflow, step, kind, error, older_than_s)
        if saga_id is not None:
            return await self._of_saga(saga_id, wanted, limit)
        return await self._of_all(wanted, limit, with_input=True)

    async def settle_dead_letters(
        self,
        decision: str,
        *,
        workflow: str | None = None,
        step: str | None = None,
        kind: str | None = None,
        error: str | None = None,
        older_than_s: float | None = None,
        limit: int | None = None,
        letters: Sequence[Mapping[str, Any]] | None = None,
        by: str | None = None,
        reason: str = "",
        dry_run: bool = False,
    ) -> Rows:
        """``retry``, ``skip`` or ``resolve`` every dead letter that fits, one by one.

        ``letters``: only these, as `dead_letters` or a ``dry_run`` has listed them, instead of
        filters.  A letter that was settled or parked again since then is left alone.

        Returns the letters as they were, without their input.  ``done`` is None with ``dry_run``,
        which changes nothing and needs no reason; ``problem`` says why a letter was not settled.

        Raises InvalidInput if a needed reason is missing, and NoServer if a server stops
        answering.  Then the letters until there are settled, and a second call continues.
        """
        action = _decision(decision)
        if not dry_run:
            check_reason(action, reason)
        if letters is None:
            wanted = self._filter(workflow, step, kind, error, older_than_s)
            rows = await self._of_all(wanted, limit, with_input=False)
        else:
            _refuse_filters(workflow, step, kind, error, older_than_s, limit)
            rows = _named(letters)
        for row in rows:
            problem = None
            if not dry_run:
                problem = await self._settle(row, action, by, reason)
            row["done"], row["problem"] = None if dry_run else problem is None, problem
        return rows

    async def _settle(self, row: Letter, action: Action, by: str | None, reason: str) -> str | None:
        try:
            where = row["transaction_id"], action, by, reason, row["step"]
            await self._actions.ask(*where, _one(row))
        except (NotAllowed, UnknownSaga, DamagedSaga) as error:  # such as a faster operator
            return str(error)
        except UNREACHABLE:
            raise
        except StoreError as error:  # only this saga is concerned
            return f"the server refused it: {error}"
        return None

    async def reindex_dead_letters(self) -> dict[str, int]:
        """Compare the indexes with every saga and repair them; slow with many sagas.

        Needed once after workers of a version without the index have parked steps.  Returns the
        numbers of ``sagas`` read and of entries ``added`` and ``removed``.
        """
        told = {"sagas": 0, "added": 0, "removed": 0}
        for shard in all_shards(self._settings.shards):
            indexes = {SAGAS: shard.attention, LETTERS: shard.dead_letters}
            for saga_id, _ in await _members(shard.sagas):
                told["sagas"] += 1
                for entry in await self._entries(saga_id) or ():
                    index = indexes[entry.which]
                    told["added"] += await dead_letter_index.enter(
                        index, entry.member, entry.since or 0
                    )
            for which, index in indexes.items():
                for member, since_ms in await _members(index):
                    saga_id = parse_dead_letter(member)[3] if which == LETTERS else member
                    entries = await self._entries(saga_id)
                    if entries is not None and not any(
                        each.which == which and each.member == member for each in entries
                    ):
                        told["removed"] += await dead_letter_index.strike(
                            index, member, int(since_ms)
                        )
        return told

    async def unlisted(self, saga_id: str) -> bool:
        """Whether the indexes lack something of a saga that waits for an operator."""
        shard = self._repository.keys(saga_id).shard
        indexes = {SAGAS: shard.attention, LETTERS: shard.dead_letters}
        for entry in await self._entries(saga_id) or ():
            if not await dead_letter_index.has(indexes[entry.which], entry.member):
                return True
        return False

    async def _entries(self, saga_id: str) -> list[Any] | None:
        """The index entries that a saga should have; None if unknown, as for a damaged one."""
        try:
            saga, _ = await self._repository.current(saga_id)
        except UnknownSaga:
            return []
        except UNREACHABLE:
            raise
        except (DamagedSaga, StoreError):  # only this saga is concerned
            return None
        return entries_of(saga)

    def _filter(
        self,
        workflow: str | None,
        step: str | None,
        kind: str | None,
        error: str | None,
        older_than_s: float | None,
    ) -> LetterFilter:
        if kind is not None and kind not in KINDS:
            raise InvalidInput(f"kind is {kind!r}; expected one of: {', '.join(KINDS)}")
        until_ms = None
        if older_than_s is not None:
            until_ms = self._clock.now_ms() - round(older_than_s * 1000)
        return LetterFilter(workflow, step, KINDS[kind] if kind else None, until_ms, error)

    # ---- finding them ----

    @by_any_id
    async def _of_saga(self, saga_id: str, wanted: LetterFilter, limit: int | None) -> Rows:
        saga, workflow = await self._repository.current(saga_id)
        data = await store.data(self._repository.keys(saga_id))
        letters = [
            (step, kind)
            for step, kind in dead_letters_of(saga)
            if wanted.fits(kind, step, saga.workflow)
            and wanted.fits_work(saga.steps[step].of(kind), parked_at(saga, step, kind))
        ]
        found = (saga, workflow, data)
        log = await store.log(self._repository.keys(saga_id)) if letters else []
        late = late_successes(map(decode, log))
        rows = [
            {
                **self._row_of(found, step, kind),
                **_details(found, step, kind),
                "late_successes": [each.to_dict() for each in late.get((kind, step), ())],
            }
            for step, kind in letters
        ]
        rows.sort(key=itemgetter("parked_at"))
        return rows[:limit]

    async def _of_all(self, wanted: LetterFilter, limit: int | None, *, with_input: bool) -> Rows:
        rows: Rows = []
        for shard in all_shards(self._settings.shards):
            rows += await self._of_shard(shard, wanted, limit, with_input)
        rows.sort(key=itemgetter("parked_at"))
        return rows[:limit]

    async def _of_shard(
        self, shard: Shard, wanted: LetterFilter, limit: int | None, with_input: bool
    ) -> Rows:
        rows: Rows = []
        sagas: dict[str, Found | None] = {}
        listed = await self._listed(shard, wanted)
        for kind, step, _, saga_id in listed:
            if len(rows) == limit:
                break
            if saga_id not in sagas:
                if len(sagas) == REMEMBERED:
                    sagas.clear()
                sagas[saga_id] = await self._found(saga_id, with_input)
            found = sagas[saga_id]
            if found is not None and _is_open(found[0], step, kind, wanted):
                rows.append(self._row_of(found, step, kind, with_input=with_input))
        return rows

    async def _listed(self, shard: Shard, wanted: LetterFilter) -> list[tuple[Kind, str, str, str]]:
        """The index's members that fit, in its order."""
        found: list[tuple[Kind, str, str, str]] = []
        offset = 0
        while True:
            page = await dead_letter_index.waiting(
                shard.dead_letters, until_ms=wanted.until_ms, offset=offset, limit=PAGE
            )
            members = (parse_dead_letter(member) for member, _ in page)
            found += [member for member in members if wanted.fits(*member[:3])]
            offset += PAGE
            if len(page) < PAGE:
                return found

    async def _found(self, saga_id: str, with_input: bool) -> Found | None:
        try:
            saga, workflow = await self._repository.current(saga_id)
        except (UnknownSaga, DamagedSaga):
            return None
        data: dict[str, str] = {}
        if with_input:
            call = store.some_data(self._repository.keys(saga_id), ("input",))
            data["input"] = (await call)[0] or "{}"
        return saga, workflow, data

    def _row_of(self, found: Found, step: str, kind: Kind, *, with_input: bool = True) -> Letter:
        saga, workflow, data = found
        work = saga.steps[step].of(kind)
        since_ms = parked_at(saga, step, kind)
        function = worker_name(workflow.by_name[step].target(kind))
        row: Letter = {
            "transaction_id": saga.id,
            "workflow": saga.workflow,
            "kind": _CALLED[kind],
            "step": step,
            "function": function,
            "worker": function,
            "attempts": work.attempt,
            "error": work.error.to_dict() if work.error else None,
            "parked_at": iso(since_ms),
            "age_s": max(0, self._clock.now_ms() - since_ms) / 1000,
            "state": saga.state.value,
        }
        return {**row, "input": json.loads(data["input"])} if with_input else row


async def _members(index: str) -> list[tuple[str, float]]:
    """All members of an index, some perhaps twice."""
    cursor, found = await dead_letter_index.scan(index, "0")
    while cursor != "0":
        cursor, more = await dead_letter_index.scan(index, cursor)
        found += more
    return found


def _is_open(saga: Saga, step: str, kind: Kind, wanted: LetterFilter) -> bool:
    """Whether a letter is open and fits; it may be parked again since the index was read."""
    if step not in saga.steps or parked(saga.steps[step]) is not kind:
        return False
    return wanted.fits_work(saga.steps[step].of(kind), parked_at(saga, step, kind))


def _refuse_filters(*filters: object) -> None:
    if any(each is not None for each in filters):
        raise InvalidInput("letters are given one by one; leave out the filters and the limit")


def _named(letters: Sequence[Mapping[str, Any]]) -> Rows:
    """The given letters, as `dead_letters` lists them.  Raises InvalidInput for other values."""
    rows = [{key: each[key] for key in each if key not in _LARGE} for each in letters]
    for row in rows:
        try:
            _one(row)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"not a letter as dead_letters lists them: {row}") from error
    return rows


def _one(row: Letter) -> OneLetter:
    """The kind of a letter and the time at which it was parked, which identify it."""
    since = datetime.fromisoformat(row["parked_at"])
    return KINDS[row["kind"]], round(since.timestamp() * 1000)


def _details(found: Found, step: str, kind: Kind) -> dict[str, Any]:
    """The results that its function would get, and the one that `resolve` would take."""
    saga, workflow, data = found
    results = {
        name: json.loads(data[field])
        for name in workflow.ancestors(step)
        if saga.steps[name].run.state is StepState.SUCCEEDED
        and (field := result_field(Kind.RUN, name)) in data
    }
    run = saga.steps[step]
    own = own_result(step, run, data) if kind is Kind.UNDO else data.get(late_field(run.done))
    return {"step_results": results, "result": json.loads(own) if own else None}


def _decision(word: str) -> Action:
    if word not in SETTLING:
        known = ", ".join(SETTLING)
        raise InvalidInput(f"cannot {word!r} a dead letter; expected one of: {known}")
    return Action(word)
