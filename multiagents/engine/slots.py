"""Which process holds an attempt?

A worker claims an attempt by its message.  The attempt of a plain task is claimed before its
message is published, and looked up when the task begins and when it has ended.
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
"""Steps of a fan-out that a process tries to claim: others claim them at the same time."""


@dataclass(frozen=True, slots=True)
class Where:
    """A saga, and the delivery and queue of the process that claims one of its attempts."""

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

        A message also stands for a slot of its fan-out.  If another process has begun its step, an
        unclaimed step of the fan-out takes the slot, and is returned.  ``version`` of the
        definition, if the message has it, saves a read.
        """
        keys = self._repository.keys(saga_id)
        if version not in self._repository.definitions:
            pinned = await store.pinned(keys)
            if pinned is None:
                return None
            version = pinned
        workflow = await self._repository.workflow(keys.id, version)
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
        """Keep a fan-out's slot after another process has decided: claim or publish a step."""
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
        """Claim an unclaimed step of the fan-out; none if all are published at once."""
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
        """Claim the first of these steps that no other process has begun.

        A message that was published again has the id of the first one.  If that one is at work,
        this one claims nothing: an errback fails all attempts of its delivery (E14).
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
        """The attempts that a delivery may report: it holds them, or they were given up (E6)."""
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
        """The attempts that a delivery holds; caches the saga's state for its report.

        ``version`` of the definition: its workflow is cached then, too.
        """
        keys, base = self._repository.keys(saga_id), self._repository.snapshots.get(saga_id)
        view, data, attempts = await store.load_held(keys, delivery, known=known_of(base))
        if data is not None:
            self._dispatcher.headers.note(saga_id, data.get("meta"))
        if view is not None:
            await self._repository.remember(keys, view, base, data)
        elif attempts and version:
            with suppress(UnknownSaga):  # the server has lost it: only a name is missing
                await self._repository.workflow(keys.id, version)
        return attempts

    async def look_around(self, workflow: Workflow) -> None:
        """Refresh the fleet, if the slots or queues of other workers matter."""
        if workflow.fans_out or not all(map(self._directory.local, workflow.workers)):
            await self._directory.keep_up()


def _ids_of(held: store.Attempt) -> tuple[str, str]:
    """The id of an attempt's message, and the one that an earlier version gave it."""
    what = (held.saga_id, *held.ref)
    return ids.step_id(*what), ids.derived_id(*what)
