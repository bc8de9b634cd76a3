"""Who holds an attempt?

A worker claims one by a message; a plain task's is claimed before it is sent, and asked for when
the task begins, and when it has ended.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from multiagents.core import ids
from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.exceptions import UnknownSaga
from multiagents.core.ports import Assignment, Directory
from multiagents.core.states import Kind
from multiagents.engine.claims import Claims, Continuation
from multiagents.engine.dispatcher import Dispatcher
from multiagents.engine.repository import Repository, known_of
from multiagents.saga.commands import Dispatch
from multiagents.saga.decide import fold
from multiagents.saga.state import Saga
from multiagents.storage import sagas as store
from multiagents.storage.calls import Call
from multiagents.storage.keys import SagaKeys
from multiagents.storage.replies import View
from multiagents.workflows.workflow import Workflow

TRIES = 8
"""So many steps of a fan-out are tried for one to begin: others take them at the same time."""


@dataclass(frozen=True, slots=True)
class Where:
    """A saga, and the delivery and queue of the process that claims something of it."""

    keys: SagaKeys
    workflow: Workflow
    delivery: str
    queue: str


class Slots:
    """Gives attempts to processes."""

    def __init__(
        self,
        repository: Repository,
        *,
        directory: Directory,
        claims: Claims,
        dispatcher: Dispatcher,
    ) -> None:
        self._repository = repository
        self._directory = directory
        self._claims = claims
        self._dispatcher = dispatcher

    async def claim(
        self,
        saga_id: str,
        ref: AttemptRef,
        *,
        delivery: str,
        queue: str,
        version: str = "",
    ) -> Assignment | None:
        """Begin an attempt; None if it is no longer to be done.

        A message also stands for a place at work in its fan-out.  If another has begun its step
        already, the place is taken by a step that waits: then that is what is returned.
        ``version`` spares a look-up of the definition where the message brought it.
        """
        keys = self._repository.keys(saga_id)
        if version not in self._repository.definitions:
            pinned = await store.pinned(keys)
            if pinned is None:
                return None
            version = pinned
        workflow = await self._repository.workflow(keys, version)
        if ref.step not in workflow.by_name:
            return None
        await self.look_around(workflow)
        where = Where(keys, workflow, delivery, queue)
        held = await self._claim(where, ref)
        if held is None and ref.kind is Kind.RUN:
            held = await self._claim_another(where, ref.step)
        return held

    async def keep_place(
        self, keys: SagaKeys, workflow: Workflow, saga: Saga, go_on: Continuation
    ) -> Assignment | None:
        """Go on with a fan-out, or have another do so, though somebody else has decided."""
        holds_back = self._dispatcher.holds_back(workflow, go_on.queue)
        if not (holds_back and self._repository.settings.continuation):
            return None
        waiting = self._claims.waiting(workflow, saga, go_on.done.step, go_on.queue)
        if go_on.allowed:
            where = Where(keys, workflow, go_on.delivery, go_on.queue)
            return await self._claim_first(where, waiting)
        await self._dispatcher.hand_on(keys, workflow, waiting)
        return None

    async def _claim(
        self, where: Where, ref: AttemptRef, *, alone: bool = False
    ) -> Assignment | None:
        base = self._repository.snapshots.get(where.keys.id)
        held, state = await self._claims.claim(
            where.keys,
            where.workflow,
            ref,
            delivery=where.delivery,
            queue=where.queue,
            known=None if where.workflow.has_conditions else known_of(base),
            alone=alone,
        )
        if held is not None:
            self._dispatcher.headers.note(held.saga_id, held.meta)
        if state is not None:
            await self._repository.remember(where.keys, state, base)
        return held

    async def _claim_another(self, where: Where, step: str) -> Assignment | None:
        """A step of the fan-out that was dispatched and not begun; none if all are sent at once."""
        if not self._dispatcher.holds_back(where.workflow, where.queue):
            return None
        base = self._repository.snapshots.get(where.keys.id)
        view = await store.load(where.keys, known=known_of(base))
        if not isinstance(view, View):
            return None
        saga, workflow = await self._repository.read(where.keys, view, base)
        saga = fold(workflow, saga, view.entries).saga
        waiting = self._claims.waiting(workflow, saga, step, where.queue)
        return await self._claim_first(where, waiting)

    async def _claim_first(self, where: Where, waiting: list[Dispatch]) -> Assignment | None:
        """The first of these steps that nobody else has begun.

        A message that was sent again has the id of the first one.  If that one is at work, this
        one takes nothing: an errback fails all that its delivery holds (E14).
        """
        for found in waiting[:TRIES]:
            held = await self._claim(where, found.ref, alone=True)
            if held is not None:
                return held
        return None

    def renewal(self, held: Assignment, notes: dict[str, str]) -> Call[bool]:
        """The call that renews a lease."""
        return self._claims.renewal(self._repository.keys(held.saga_id), held, notes)

    async def owed(self, saga_id: str, delivery: str) -> list[store.Attempt]:
        """What a delivery may report: what it holds, or what was given up while it ran (E6)."""
        held = await self._repository.held(saga_id, delivery)
        if held:
            return held
        view = await store.load(self._repository.keys(saga_id))
        if not isinstance(view, View):
            return []
        saga, workflow = await self._repository.read(self._repository.keys(saga_id), view, None)
        given_up = (
            store.Attempt(saga_id, Kind(kind), step, attempt, nonce)
            for step, run in fold(workflow, saga, view.entries).saga.steps.items()
            for kind, attempt, nonce in run.lost
        )
        return [each for each in given_up if delivery in _ids_of(each)]

    async def fence(self, saga_id: str, delivery: str, version: str = "") -> list[store.Attempt]:
        """Likewise, and remember the saga's state for what the delivery reports.

        ``version`` of the definition, by which its workflow is known then.
        """
        keys, base = self._repository.keys(saga_id), self._repository.snapshots.get(saga_id)
        view, data, attempts = await store.load_held(keys, delivery, known=known_of(base))
        if data is not None:
            self._dispatcher.headers.note(saga_id, data.get("meta"))
        if view is not None:
            await self._repository.remember(keys, view, base, data)
        elif attempts and version:
            with suppress(UnknownSaga):  # a server that has lost it: nothing hangs on a name
                await self._repository.workflow(keys, version)
        return attempts

    async def look_around(self, workflow: Workflow) -> None:
        """Know who else is there, where it matters how many, or on which queue, others work."""
        if workflow.fans_out or not all(map(self._directory.local, workflow.workers)):
            await self._directory.keep_up()


def _ids_of(held: store.Attempt) -> tuple[str, str]:
    """The id of an attempt's message, and the one that an earlier version gave it."""
    what = (held.saga_id, *held.ref)
    return ids.step_id(*what), ids.derived_id(*what)
