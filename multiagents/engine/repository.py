"""What does a process cache of sagas, and how does it read the rest?

It caches definitions, and the last state of the sagas that it has moved.  Both only save reads, and
every use is checked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from multiagents.core.exceptions import DamagedSaga, UnknownSaga
from multiagents.core.fields import OUTBOX_END
from multiagents.core.settings import Settings
from multiagents.engine.cache import Recent, SagaCache, Snapshot
from multiagents.engine.saga_reader import read_saga
from multiagents.saga.decide import fold
from multiagents.saga.state import Saga
from multiagents.storage import damage, outcomes
from multiagents.storage import sagas as store
from multiagents.storage.client import UNREACHABLE, StoreError
from multiagents.storage.keys import SagaKeys
from multiagents.storage.replies import End, Known, View
from multiagents.workflows.workflow import Workflow, from_canonical


@dataclass(frozen=True, slots=True)
class Reading:
    """A saga as it was read."""

    keys: SagaKeys
    workflow: Workflow
    view: View
    decided: Saga
    """The state after the last decision, on which the view builds."""
    saga: Saga
    """The present state: pending entries folded in."""


class Repository:
    """Reads sagas and definitions, and caches them; thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.definitions: Recent[str, Workflow] = Recent()
        """By content hash."""
        self.snapshots = SagaCache()

    def keys(self, saga_id: str) -> SagaKeys:
        """The keys of a saga."""
        return SagaKeys(saga_id, self.settings.shards)

    async def current(self, saga_id: str) -> tuple[Saga, Workflow]:
        """The present saga, pending entries folded in; writes nothing.

        Raises UnknownSaga if there is no such saga.
        """
        found = await self.reading(self.keys(saga_id))
        return found.saga, found.workflow

    async def reading(self, keys: SagaKeys) -> Reading:
        """The present saga, with what a decision over it needs.

        Raises UnknownSaga, and DamagedSaga for one that cannot be read.
        """
        try:
            view = await store.load(keys)
            if not isinstance(view, View):
                raise UnknownSaga(
                    f"no saga {keys.id!r}: it never existed, or its retention is over"
                )
            decided, workflow = await self.read(keys, view, None)
            saga = fold(workflow, decided, view.entries).saga
            return Reading(keys, workflow, view, decided, saga)
        except UNREACHABLE:
            raise
        except Exception as error:
            await self.check_damage(keys, error)
            raise

    async def check_damage(self, keys: SagaKeys, error: Exception | None = None) -> None:
        """Raise DamagedSaga if a saga is damaged; ``error``: of the read that failed."""
        found = await damage.examine(keys)
        problems = found.problems
        if not problems and found.there and error is not None:
            problems = _unreadable(error)
        if problems:
            raise DamagedSaga(keys.id, problems) from error

    async def meta(self, keys: SagaKeys) -> dict[str, Any]:
        """The meta data of the start: correlation id, tags, idempotency key."""
        found: dict[str, Any] = json.loads(await store.meta(keys) or "{}")
        return found

    async def workflow(self, saga_id: str, version: str) -> Workflow:
        """The definition with this content hash, by which a saga runs."""
        found = self.definitions.get(version)
        if found is None:
            text = await store.definition(self.keys(saga_id).shard, version)
            if text is None:
                raise UnknownSaga(f"definition {version} of saga {saga_id} is not stored")
            found = self.definitions.put(version, from_canonical(text))
        return found

    def workflow_name(self, version: str) -> str:
        """The workflow's name of a cached definition; empty if it is not cached."""
        known = self.definitions.get(version)
        return "" if known is None else known.name

    def remembered(self, saga_id: str) -> Workflow | None:
        """The definition of a saga whose state is cached; else None."""
        base = self.snapshots.get(saga_id)
        return self.definitions.get(base.saga.version) if base else None

    async def held(self, saga_id: str, delivery: str) -> list[store.Attempt]:
        """The attempts that a Celery delivery has claimed and not yet reported."""
        work = await store.work(self.keys(saga_id))
        return store.held_by(saga_id, work, delivery)

    async def end(self, keys: SagaKeys) -> End:
        """An ended saga without its data, which the caller reads later, to miss no waiter."""
        owed = await store.command(keys, OUTBOX_END)
        version = await store.version(keys)
        return End(version or "", {}, await outcomes.read_log(keys), owed or "")

    async def complete(
        self, keys: SagaKeys, end: End | None, fields: Sequence[str], owed: str
    ) -> End:
        """The whole end: adds a long log, which a reply leaves out.  None: the reply was lost."""
        if end is None:
            found = await self.end(keys)
            return replace(found, data=await outcomes.read_data(keys, fields))
        log = await outcomes.read_log(keys) if end.log is None else end.log
        return replace(end, log=log, owed=owed)

    async def remember(
        self,
        keys: SagaKeys,
        view: View,
        base: Snapshot | None,
        data: dict[str, str] | None = None,
    ) -> None:
        saga, _ = await self.read(keys, view, base)
        self.snapshots.put(
            Snapshot(view.version, view.cursor, saga, view.entries, view.texts, data)
        )

    async def read(
        self, keys: SagaKeys, view: View, base: Snapshot | None
    ) -> tuple[Saga, Workflow]:
        """The state of a view: its own, or the snapshot's brought up to the view's cursor."""
        if view.head is None or view.steps is None or view.definition is None:
            if base is None:
                raise AssertionError("the store left out a state that we do not have")
            workflow = await self.workflow(keys.id, base.saga.version)
            saga = base.saga
        else:
            workflow = await self.workflow(keys.id, view.definition)
            saga = read_saga(keys.id, workflow, view)
        if view.values is not None:
            saga = replace(saga, values=view.values)
        return fold(workflow, saga, view.passed).saga, workflow


def known_of(base: Snapshot | None) -> Known:
    """The revision and cursor of a snapshot, which the server need not send again."""
    return (base.version, base.cursor) if base else ("", "")


def _unreadable(error: Exception) -> tuple[str, ...]:
    """The problem of a saga with sound keys that cannot be read; none if it may be readable."""
    if isinstance(error, StoreError | UnknownSaga):
        return ()
    return (f"it cannot be read ({type(error).__name__}: {error})",)
