"""How does a saga move: append, decide, commit, publish?

Everything here is a `Flow`: it awaits Redis calls and effects and has no connection, so that the
sync and async edges and the simulator all run this very code.  A process may die at any await.
Three rules make that safe:

- an entry is in the log before any decision over it, and the saga is marked dirty;
- a commit is all or nothing, and only over the revision that was read;
- a committed command stays in the outbox with the time of the next look at it.

Two processes may work on one saga at once.  The loser of a commit gets the fresh state in reply
and decides again, or finds that its entry is already decided.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import structlog

from multiagents.core.clock import Clock
from multiagents.core.entries import Entry, Failed, Report, Requested, Started
from multiagents.core.exceptions import UnknownSaga
from multiagents.core.fields import OUTBOX_END
from multiagents.core.ports import Assignment
from multiagents.core.states import ENDED, SagaState
from multiagents.engine import messages
from multiagents.engine.cache import Snapshot
from multiagents.engine.claims import Claims, Continuation
from multiagents.engine.commit_plan import index_keys
from multiagents.engine.continuation import Ground, Move, Planner
from multiagents.engine.dispatcher import Dispatcher, note_refused
from multiagents.engine.ends import Ends
from multiagents.engine.plain_tasks import Unsent
from multiagents.engine.repository import Reading, Repository, known_of
from multiagents.engine.saga_reader import blank_saga
from multiagents.engine.slots import Slots
from multiagents.saga.state import Saga
from multiagents.storage import replies
from multiagents.storage import sagas as store
from multiagents.storage.calls import Call
from multiagents.storage.client import StoreError
from multiagents.storage.commit import RefusedWrite
from multiagents.storage.keys import SagaKeys
from multiagents.storage.refusals import is_of_another_type
from multiagents.storage.replies import Committed, End, View
from multiagents.storage.sagas import Guard
from multiagents.workflows.workflow import Workflow

log = structlog.get_logger(__name__)

StartReply = int | tuple[RefusedWrite, ...]
Recording = Callable[..., Call[StartReply]]
"""Makes the call that writes a new saga, given its definition."""

PATIENCE = 3
"""After this many lost commits, a process stops continuing with a step: a commit that claims none
wins more easily."""
REPORT_WITHOUT_SAGA = (
    "a step has ended, but its saga is gone, so nothing undoes it: its server has lost the saga, or"
    " its retention is over"
)
WIDE = 20
"""With more steps, a process that lost a commit reads the later entries, not all the state."""


class Coordinator:
    """The flows that move sagas.  Holds caches only: any number may run at once, anywhere.

    `engine.composition` makes one with its parts.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        claims: Claims,
        slots: Slots,
        dispatcher: Dispatcher,
        ends: Ends,
        planner: Planner,
        clock: Clock,
        wide: int = WIDE,
    ) -> None:
        self.repository = repository
        self.claims = claims
        self.slots = slots
        self.dispatcher = dispatcher
        self.ends = ends
        self.clock = clock
        self.observers: list[Callable[[str, SagaState], None]] = []
        """Called with each new state that a commit made here brings; must not block or raise."""
        self.watchers: list[Callable[[Move], None]] = []
        """Called with each commit made here; every entry of a log is decided in one commit."""
        self._planner = planner
        self._wide = wide

    # ---- start ----

    async def start(
        self,
        workflow: Workflow,
        *,
        saga_id: str,
        waiting: tuple[str, str],
        data: dict[str, str],
        tags: tuple[str, ...] = (),
        digest: str = "",
    ) -> int:
        """Record a saga with its first decision, then publish its first commands.

        Durable when it returns.  ``waiting``: the Celery task id that gets the outcome, and its
        canvas as JSON ("" = none).  ``digest`` and the reply: see `storage.sagas.start`.
        Raises DamagedSaga if remains of a saga with this id exist.
        """
        keys = self.repository.keys(saga_id)
        self.dispatcher.headers.start(saga_id, data.get("meta"))
        move = await self._first_move(keys, workflow, data)
        record = partial(
            store.start,
            keys,
            move.plan,
            waiting=waiting,
            reads_values=workflow.has_conditions,
            wide=len(workflow.steps) > self._wide,
            data=data,
            indexes=index_keys(keys, workflow.name, (*workflow.tags, *tags)),
            digest=digest,
        )
        reply = await self._record(keys, workflow, record)
        if isinstance(reply, int) and reply != store.CREATED:
            await self._join(keys, reply)
            return reply
        if not isinstance(reply, int):
            note_refused(keys, reply)
        self._tell(keys, move)
        await self._send(keys, move)
        return store.CREATED

    async def _first_move(self, keys: SagaKeys, workflow: Workflow, data: dict[str, str]) -> Move:
        """The first decision of a new saga; its commit writes the entry `Started` too."""
        blank = blank_saga(workflow, keys.id, self.clock.now_ms(), data)
        entry = Started(blank.created_at)
        await self.slots.look_around(workflow)
        move = self._planner.move(Ground(keys, workflow, blank, "0", data), (entry,))
        move.plan.state_before, move.plan.decided = None, [entry, *move.plan.decided]
        return move

    async def _record(self, keys: SagaKeys, workflow: Workflow, record: Recording) -> StartReply:
        """Write a new saga, and its definition where the server may not have it."""
        is_stored = workflow.version in self.repository.definitions
        text = "" if is_stored else workflow.canonical()
        self.repository.definitions.put(workflow.version, workflow)
        try:
            reply = await record(definition=(workflow.version, text))
            if reply == store.SEND_DEFINITION:
                reply = await record(definition=(workflow.version, workflow.canonical()))
        except StoreError as error:
            if is_of_another_type(error):
                await self.repository.check_damage(keys, error)
            raise
        return reply

    async def _join(self, keys: SagaKeys, reply: int) -> None:
        """A saga with this id exists; if it has ended, the second start gets its outcome now."""
        self.dispatcher.headers.forget(keys.id)
        await self.repository.check_damage(keys)
        if reply == store.EXISTED:
            await self.ends.join(keys)

    # ---- what happens to a saga ----

    async def coordinate(self, saga_id: str) -> None:
        """Decide over the pending entries of a saga's log; no effect if the saga is gone."""
        keys, base = self.repository.keys(saga_id), self.repository.snapshots.get(saga_id)
        view = await store.load(keys, known=known_of(base))
        await self._drive(keys, view, base)

    async def append(
        self, saga_id: str, entry: Entry, *, guard: Guard | None = None, taken: str = ""
    ) -> bool:
        """Log an entry and decide over it; False if a guard did not hold.

        Raises UnknownSaga if there is no such saga.
        """
        keys, base = self.repository.keys(saga_id), self.repository.snapshots.get(saga_id)
        call = store.append(keys, entry, known=known_of(base), guard=guard, taken=taken)
        view = await call
        if view == replies.GONE and guard is None:
            raise UnknownSaga(f"no saga {saga_id!r}: it never existed, or its retention is over")
        await self._drive(keys, view, base)
        return view != replies.MOVED

    async def order(self, found: Reading, entry: Requested) -> Saga:
        """Log an operator's action and decide, in one trip if nothing has happened since.

        ``found``: the saga as the operator saw it.  Returns the saga after it.  Raises UnknownSaga.
        """
        keys, view = found.keys, found.view
        await self.dispatcher.headers.learn(keys)
        base = Snapshot(view.version, view.cursor, found.decided, view.entries, view.texts)
        ground = Ground(keys, found.workflow, base.saga)
        move = self._planner.move(ground, (*base.pending, entry))
        call = store.advance(keys, move.plan, known=known_of(base), texts=base.texts, entry=entry)
        done = _own(move, await call)
        if isinstance(done, Committed):
            await self._committed(keys, move, done, None)
            after = self.repository.snapshots.get(keys.id)
            if after is not None and int(after.cursor) >= int(done.cursor):
                return after.saga
            if move.decision.saga.state in ENDED:
                return move.decision.saga
            # A published command, or a later entry, may have ended it.
        else:
            await self._drive(keys, done, base)
        return (await self.repository.current(keys.id))[0]

    async def report(
        self,
        saga_id: str,
        entry: Report,
        *,
        result: str | None = None,
        go_on: Continuation | None = None,
    ) -> Assignment | None:
        """Log the end of an attempt and decide; returns the next attempt, if it is claimed.

        With the saga in its cache, a process decides first: one trip logs and commits, if nothing
        has happened since.
        """
        keys, base = self.repository.keys(saga_id), self.repository.snapshots.get(saga_id)
        if saga_id not in self.dispatcher.headers:
            await self.dispatcher.headers.learn(keys)
        workflow = self.repository.definitions.get(base.saga.version) if base else None
        if base is not None and workflow is not None and not workflow.has_conditions:
            data = None if base.data is None else {**base.data, **store.result_of(entry, result)}
            ground = Ground(keys, workflow, base.saga, data=data)
            move = self._planner.move(ground, (*base.pending, entry), go_on)
            reply = await store.advance(
                keys,
                move.plan,
                known=known_of(base),
                texts=base.texts,
                entry=entry,
                result=result,
            )
            done = _own(move, reply)
            if isinstance(done, Committed):
                return await self._committed(keys, move, done, go_on)
            view: View | str = done
        else:
            move = None
            view = await store.report(keys, entry, result=result, known=known_of(base))
        if view == replies.GONE:
            what = {"saga": saga_id, "step": entry.step, "attempt": entry.attempt}
            log.error(REPORT_WITHOUT_SAGA, **what)
        return await self._drive(keys, view, base, go_on, move)

    async def log_failure(
        self,
        saga_id: str,
        delivery: str,
        entry_of: Callable[[store.Attempt], Failed],
        *,
        attempts: list[store.Attempt] | None = None,
    ) -> bool:
        """Log the failure of all attempts that a delivery holds; a sweep decides.

        For callbacks in a worker's main process, where nothing may take long (E14, E20).
        ``attempts``: these, if they are known.
        """
        keys = self.repository.keys(saga_id)
        held = attempts
        if held is None:
            held = await self.slots.owed(saga_id, delivery)
        for attempt in held:
            entry = entry_of(attempt)
            await store.report(keys, entry, dirty_at=entry.at_ms)
        return bool(held)

    # ---- decide, commit, publish ----

    async def _drive(
        self,
        keys: SagaKeys,
        view: View | str,
        base: Snapshot | None,
        go_on: Continuation | None = None,
        tried: Move | None = None,
    ) -> Assignment | None:
        """Decide over pending entries until there are none.

        ``base``: the snapshot on which the view builds.  ``tried``: the last lost commit.  It may
        stand after all, if its reply was lost and another process has decided after it.
        """
        overtaken = 0
        if isinstance(view, View) and view.entries:
            await self.dispatcher.headers.learn(keys)
        while isinstance(view, View) and view.entries:
            saga, workflow = await self.repository.read(keys, view, base)
            if go_on is not None and tried is not None and tried.holds(saga):
                await self._drive(keys, view, base)
                return await self._go_on(keys, saga, tried, go_on)
            if go_on is not None and overtaken == PATIENCE:
                go_on = replace(go_on, allowed=False)
            ground = Ground(keys, workflow, saga, view.last)
            move = self._planner.move(ground, view.entries, go_on)
            base = Snapshot(view.version, view.cursor, saga)
            reply = await store.commit(keys, known_of(base), move.plan, view.texts)
            done = _own(move, reply)
            if isinstance(done, Committed):
                return await self._committed(keys, move, done, go_on)
            view, overtaken, tried = done, overtaken + 1, move
        if go_on is None or not isinstance(view, View):
            return None
        saga, workflow = await self.repository.read(keys, view, base)
        self.repository.snapshots.put(Snapshot(view.version, view.cursor, saga))
        if tried is not None and tried.holds(saga):
            return await self._go_on(keys, saga, tried, go_on)
        return await self.slots.keep_place(keys, workflow, saga, go_on)

    async def _committed(
        self, keys: SagaKeys, move: Move, reply: Committed, go_on: Continuation | None
    ) -> Assignment | None:
        """Our decision stands: publish its commands, then decide over later entries."""
        base = Snapshot(move.plan.version, reply.cursor, move.decision.saga)
        self.repository.snapshots.put(base)
        self._tell(keys, move)
        if reply.refused:
            note_refused(keys, reply.refused)
        if move.plan.outbox or move.waiting or reply.end:
            await self._send(keys, move, reply.end)
        if reply.more:
            view = await store.load(keys, known=known_of(base))
            await self._drive(keys, view, base)
        if go_on is None:
            return None
        return await self._go_on(keys, move.decision.saga, move, go_on)

    async def _go_on(
        self, keys: SagaKeys, saga: Saga, move: Move, go_on: Continuation
    ) -> Assignment | None:
        """The attempt that a commit has claimed for this process."""
        if move.begun is None:
            return None
        return await self.claims.next_assignment(keys, saga, move.workflow, move.begun, go_on)

    def _tell(self, keys: SagaKeys, move: Move) -> None:
        for watch in self.watchers:
            watch(move)
        for tell in tuple(self.observers) if move.plan.moves else ():
            tell(keys.id, move.plan.state)

    async def _send(self, keys: SagaKeys, move: Move, end: End | None = None) -> None:
        """Publish a commit's commands.  ``end``: from the commit's reply, unless that was lost."""
        saga = move.decision.saga
        if move.plan.outcome is not None:
            owed = move.plan.outbox[OUTBOX_END][0]
            end = await self.repository.complete(keys, end, move.plan.outcome, owed)
        plan, workflow = move.plan, move.workflow
        done = await self.dispatcher.send(keys, workflow, saga, plan=plan, end=end)
        if move.waiting:
            await self.dispatcher.hand_on(keys, workflow, move.waiting)
        note_refused(keys, done.refused)
        for entry in done.failed:
            await self.report(keys.id, entry)

    async def send_again(
        self, keys: SagaKeys, workflow: Workflow, commands: dict[str, int]
    ) -> None:
        """Publish unclaimed commands of the outbox: field -> how often it was published before.

        Raises NotTaken if a queue refuses one.
        """
        await self.dispatcher.headers.learn(keys)
        done = await self.dispatcher.dispatch(keys, workflow, commands)
        for entry in done.failed:
            await self.report(keys.id, entry)
        if error := messages.not_taken(done.refused):
            raise error

    async def send_claimed(self, keys: SagaKeys, claim: Unsent) -> None:
        """Publish a plain task that is claimed and not sent.  Raises NotTaken likewise."""
        saga, workflow = await self.repository.current(keys.id)
        found = await self.dispatcher.plain.send_claimed(keys, workflow, saga, claim)
        if isinstance(found, Failed):
            await self.report(keys.id, found)
        elif found is not None:
            raise messages.NotTaken(found.key, found.reason)


def _own(move: Move, reply: Committed | View | str) -> Committed | View | str:
    """A view of our own revision is a success: the commit was sent twice, and the first stands."""
    if isinstance(reply, View) and reply.version == move.plan.version:
        return Committed(bool(reply.entries), reply.cursor)
    return reply
