"""How does a saga move: append, decide, commit, publish?

Everything here is a `Flow`: it yields Redis calls and effects and knows no connection, so that
the sync and async edges and the simulator all run this very code.  A process may die at any
yield.  What makes that safe:

- what happened is in the log before anything is decided over it, and the saga is marked dirty;
- a commit is all or nothing and only over the version that was read;
- a committed command stands in the outbox with a time at which somebody looks at it again.

Two processes may work on one saga at once; the loser of a commit gets the fresh state in reply
and decides again, or finds that its entry has been dealt with.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from multiagents.core import ids
from multiagents.core.clock import Clock
from multiagents.core.entries import (
    Claimed,
    Entry,
    Failed,
    Failure,
    Report,
    Started,
    Withdrawn,
)
from multiagents.core.exceptions import UnknownSaga
from multiagents.core.ports import Assignment, Directory
from multiagents.core.settings import Settings
from multiagents.core.states import ENDED, Kind, Outcome, SagaState, StepState, UndoState
from multiagents.orchestrator import outbox
from multiagents.orchestrator.commands import (
    ClearTimer,
    Command,
    Deliver,
    Dispatch,
    SetTimer,
    Withdraw,
)
from multiagents.orchestrator.conditions import ConditionError, compute
from multiagents.orchestrator.decide import Decision, fold
from multiagents.orchestrator.outbox import Deliverance, Message, Publish
from multiagents.orchestrator.saga import (
    Saga,
    decode_saga,
    encode_head,
    encode_step,
    new_saga,
)
from multiagents.orchestrator.workflow import TaskCall, Workflow, from_canonical
from multiagents.storage import keys as k
from multiagents.storage import sagas as store
from multiagents.storage.calls import Flow, ask
from multiagents.storage.keys import SagaKeys
from multiagents.storage.sagas import Committed, Guard, Plan, View

_CACHED_SAGAS = 256


@dataclass(frozen=True, slots=True)
class Continuation:
    """Leave to go on with the next step in this process.

    ``queue``: the one this process is delivering from; ``delivery``: the Celery delivery that
    pays for it; ``done`` the attempt that just ended.
    """

    queue: str
    delivery: str
    done: Assignment
    result: str | None = None


@dataclass(slots=True)
class _Turn:
    """A decision on its way to a commit."""

    before: Saga
    workflow: Workflow
    decision: Decision
    plan: Plan
    next_claim: Claimed | None = None


class Coordinator:
    """The flows that move sagas.  Holds caches only: any number may run at once, anywhere."""

    def __init__(
        self,
        *,
        settings: Settings,
        clock: Clock,
        directory: Directory,
        hostname: str = "",
        nonce: Callable[[], str] = ids.nonce,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.directory = directory
        self.hostname = hostname
        self._nonce = nonce
        self._workflows: dict[str, Workflow] = {}
        self._sagas: OrderedDict[str, tuple[str, Saga]] = OrderedDict()

    # ---- what others call ----

    def keys(self, saga_id: str) -> SagaKeys:
        """The keys of a saga."""
        return SagaKeys(saga_id, self.settings.shards)

    def coordinate(self, saga_id: str) -> Flow[None]:
        """Decide over whatever is pending in a saga's log.  Does nothing for a saga that is gone."""
        keys = self.keys(saga_id)
        view = yield from ask(store.load(keys, known=self._known(saga_id)))
        yield from self._drive(keys, view)

    def append(
        self,
        saga_id: str,
        entry: Entry,
        *,
        guard: Guard | None = None,
        taken: str = "",
    ) -> Flow[bool]:
        """Log an entry and decide over it; False if a guard did not hold.

        Raises UnknownSaga if there is no such saga.
        """
        keys = self.keys(saga_id)
        known = self._known(saga_id)
        view = yield from ask(store.append(keys, entry, known=known, guard=guard, taken=taken))
        if view == store.GONE and guard is None:
            raise UnknownSaga(f"no saga {saga_id!r}: it never was, or its retention is over")
        yield from self._drive(keys, view)
        return view != store.MOVED

    def report(
        self,
        saga_id: str,
        entry: Report,
        *,
        result: str | None = None,
        go_on: Continuation | None = None,
    ) -> Flow[Assignment | None]:
        """Log the end of an attempt and decide; perhaps the next attempt, claimed already."""
        keys = self.keys(saga_id)
        cached = self._sagas.get(saga_id)
        if cached is not None and not self._reads_values(cached[1]):
            version, saga = cached
            turn = self._decide(saga, self._workflows[saga.version], (entry,), "", go_on)
            call = store.advance(keys, version, turn.plan, entry=entry, result=result)
            reply = yield from ask(call)
            if isinstance(reply, Committed):
                return (yield from self._committed(keys, turn, reply, go_on))
            view: View | str = reply
        else:
            known = cached[0] if cached else ""
            view = yield from ask(store.report(keys, entry, result=result, known=known))
        return (yield from self._drive(keys, view, go_on))

    def current(self, saga_id: str) -> Flow[tuple[Saga, Workflow]]:
        """The saga as it is now, pending entries worked in, nothing written.

        Raises UnknownSaga if there is no such saga.
        """
        keys = self.keys(saga_id)
        view = yield from ask(store.load(keys))
        if not isinstance(view, View):
            raise UnknownSaga(f"no saga {saga_id!r}: it never was, or its retention is over")
        saga, workflow = yield from self._read(keys, view)
        return fold(workflow, saga, view.entries).saga, workflow

    def meta(self, keys: SagaKeys) -> Flow[dict[str, Any]]:
        """What was noted at the start: correlation id, tags, idempotency key."""
        data = yield from ask(store.data(keys))
        found: dict[str, Any] = json.loads(data.get("meta", "{}"))
        return found

    def log_failure(
        self, saga_id: str, delivery: str, entry_of: Callable[[store.Attempt], Failed]
    ) -> Flow[bool]:
        """Log that whatever a delivery holds has failed, and leave deciding to a sweep.

        For callbacks in a worker's main process, where nothing may take long (E14, E20).
        """
        keys = self.keys(saga_id)
        held = yield from self.held(saga_id, delivery)
        for attempt in held:
            entry = entry_of(attempt)
            yield from ask(store.report(keys, entry, dirty_at=entry.at_ms))
        return bool(held)

    def held(self, saga_id: str, delivery: str) -> Flow[list[store.Attempt]]:
        """The attempts that a Celery delivery has claimed and not yet reported."""
        work = yield from ask(store.work(self.keys(saga_id)))
        found = []
        for name, value in work.items():
            if name.startswith("c:"):
                attempt, nonce, _, holder = value.split("|", 3)
                _, kind, step = name.split(":")
                if holder == delivery:
                    claim = store.Attempt(saga_id, Kind(kind), step, int(attempt), nonce)
                    found.append(claim)
        return found

    # ---- append, decide, commit ----

    def _drive(
        self, keys: SagaKeys, view: View | str, go_on: Continuation | None = None
    ) -> Flow[Assignment | None]:
        """Decide over pending entries until there are none."""
        while isinstance(view, View) and view.entries:
            saga, workflow = yield from self._read(keys, view)
            turn = self._decide(saga, workflow, view.entries, view.last, go_on)
            reply = yield from ask(store.commit(keys, view.version, turn.plan))
            if isinstance(reply, Committed):
                return (yield from self._committed(keys, turn, reply, go_on))
            view = reply
        return None

    def _committed(
        self, keys: SagaKeys, turn: _Turn, reply: Committed, go_on: Continuation | None
    ) -> Flow[Assignment | None]:
        """Our decision stands: send its commands, then look at what came in meanwhile."""
        self._remember(turn.plan.version, turn.decision.saga)
        yield from self.send(keys, turn.workflow, turn.decision.saga, turn.plan)
        if reply.more:
            view = yield from ask(store.load(keys, known=turn.plan.version))
            yield from self._drive(keys, view)
        if turn.next_claim is None or go_on is None:
            return None
        return (yield from self._next_assignment(keys, turn, go_on))

    def _read(self, keys: SagaKeys, view: View) -> Flow[tuple[Saga, Workflow]]:
        cached = self._sagas.get(keys.id)
        if view.head is None or view.steps is None or view.definition is None:
            if cached is None or cached[0] != view.version:
                raise AssertionError("the store left out a state that we do not have")
            saga = cached[1]
            workflow = self._workflows[saga.version]
        else:
            workflow = yield from self.workflow(keys, view.definition)
            saga = read_saga(keys.id, workflow, view)
        if view.values is not None:
            saga = replace(saga, values=view.values)
        return saga, workflow

    def workflow(self, keys: SagaKeys, version: str) -> Flow[Workflow]:
        """The definition with this content hash."""
        if version not in self._workflows:
            text = yield from ask(store.definition(keys.shard, version))
            if text is None:
                raise UnknownSaga(f"definition {version} of saga {keys.id} is not stored")
            self._workflows[version] = from_canonical(text)
        return self._workflows[version]

    def _known(self, saga_id: str) -> str:
        cached = self._sagas.get(saga_id)
        return cached[0] if cached else ""

    def _reads_values(self, saga: Saga) -> bool:
        return self._workflows[saga.version].has_conditions

    def _remember(self, version: str, saga: Saga) -> None:
        if saga.state in ENDED:
            self._sagas.pop(saga.id, None)
            return
        self._sagas[saga.id] = (version, saga)
        self._sagas.move_to_end(saga.id)
        if len(self._sagas) > _CACHED_SAGAS:
            self._sagas.popitem(last=False)

    def _decide(
        self,
        saga: Saga,
        workflow: Workflow,
        entries: Iterable[Entry],
        cursor: str,
        go_on: Continuation | None,
    ) -> _Turn:
        decision = fold(workflow, saga, entries)
        claim = self._claim_next(workflow, decision, go_on) if go_on else None
        if claim is not None:
            after = fold(workflow, decision.saga, (claim,))
            decision = Decision(after.saga, (), decision.changed | after.changed)
        plan = self._plan(saga, decision, cursor)
        if claim is not None and go_on is not None:
            self._plan_claim(plan, workflow, claim, go_on)
        return _Turn(saga, workflow, decision, plan, claim)

    # ---- a decision as a plan ----

    def _plan(self, before: Saga, decision: Decision, cursor: str) -> Plan:
        saga, now_ms = decision.saga, self.clock.now_ms()
        plan = Plan(
            version=self._nonce(),
            cursor=cursor,
            head=encode_head(saga),
            now_ms=now_ms,
            created_at=saga.created_at,
            state_before=before.state,
            state=saga.state,
            steps=[(name, encode_step(saga.steps[name])) for name in sorted(decision.changed)],
        )
        for command in decision.commands:
            self._plan_command(plan, saga, command)
        self._plan_retention(plan, before, saga)
        return plan

    def _plan_command(self, plan: Plan, saga: Saga, command: Command) -> None:
        again_ms = plan.now_ms + outbox.UNCONFIRMED_MS
        match command:
            case Dispatch(kind, step, attempt):
                name = k.outbox_field(kind, step, attempt)
                plan.outbox[name] = (outbox.outbox_value(0, 0), again_ms)
            case Withdraw(kind, step, attempt):
                name = k.outbox_field(kind, step, attempt)
                plan.withdrawals[name] = Withdrawn(plan.now_ms, kind, step, attempt, plan.version)
            case SetTimer(timer, at_ms):
                plan.due[k.due_timer(saga.id, timer)] = at_ms
            case ClearTimer(timer):
                member = k.due_timer(saga.id, timer)
                plan.due.pop(member, None)
                plan.cleared.append(member)
            case Deliver():
                plan.outbox[k.OUTBOX_END] = (outbox.outbox_value(0, 0), again_ms)

    def _plan_retention(self, plan: Plan, before: Saga, saga: Saga) -> None:
        """Retention begins with the end, or when the last dead letter is closed (rule 13)."""
        member = k.due_purge(saga.id)
        if saga.state in ENDED and not has_dead_letters(saga):
            if before.state not in ENDED or has_dead_letters(before):
                plan.due[member] = plan.now_ms + self.settings.retention_ms
        elif before.state in ENDED:
            plan.cleared.append(member)

    # ---- sending ----

    def send(self, keys: SagaKeys, workflow: Workflow, saga: Saga, plan: Plan) -> Flow[None]:
        """Send the commands that a commit has just put into the outbox."""
        names = [name for name in plan.outbox if name not in plan.withdrawals]
        if k.OUTBOX_END in names:
            names.remove(k.OUTBOX_END)
            yield from self.deliver(keys, workflow, saga)
        yield from self.dispatch(keys, workflow, dict.fromkeys(names, (0, 0)))

    def dispatch(
        self, keys: SagaKeys, workflow: Workflow, commands: dict[str, tuple[int, int]]
    ) -> Flow[None]:
        """Send commands of the outbox: field -> (last sent, how often)."""
        messages: dict[str, Message] = {}
        for name in commands:
            kind, step, attempt = k.parse_outbox_field(name)
            target = outbox.target_of(workflow.by_name[step], kind)
            if isinstance(target, TaskCall):
                yield from self._send_plain(keys, workflow, (kind, step, attempt), target)
            else:
                messages[name] = self.message(keys, workflow, (kind, step, attempt), target)
        if not messages:
            return
        if (yield Publish(tuple(messages.values()))):
            again_ms = self.clock.now_ms() + self.settings.lease_ms
            sent = {
                name: (outbox.outbox_value(message.sent_ms, commands[name][1] + 1), again_ms)
                for name, message in messages.items()
            }
            yield from ask(store.published(keys, sent))

    def message(
        self, keys: SagaKeys, workflow: Workflow, what: tuple[Kind, str, int], worker: str
    ) -> Message:
        """The message that asks a worker for an attempt: ``what`` is kind, step, attempt."""
        kind, step, attempt = what
        spec = workflow.by_name[step]
        queue = spec.queue if kind is Kind.RUN else None
        return Message(
            saga_id=keys.id,
            kind=kind,
            step=step,
            attempt=attempt,
            task=worker,
            queue=queue or self.directory.queue_of(worker),
            version=workflow.version,
            sent_ms=self.clock.now_ms(),
            priority=spec.priority,
        )

    def _send_plain(
        self, keys: SagaKeys, workflow: Workflow, what: tuple[Kind, str, int], call: TaskCall
    ) -> Flow[None]:
        """Send a plain Celery task, at most once: it is claimed on its behalf first (E13).

        Should this process die before the message is out, the step's time-out decides.
        """
        kind, step, attempt = what
        task_id = ids.derived_id(keys.id, kind, step, attempt)
        timeout_s = outbox.timeout_of(workflow, step, kind, call.timeout_s) or call.timeout_s
        deadline_ms = self.clock.now_ms() + round(timeout_s * 1000)
        held = yield from self.claim(
            keys.id,
            kind,
            step,
            attempt,
            delivery=task_id,
            queue="",
            worker=call.task,
            deadline_ms=deadline_ms,
        )
        if held is None:
            return
        spec = workflow.by_name[step]
        try:
            args, kwargs = plain_arguments(call, held, workflow)
        except ConditionError as error:
            entry = refused(held, error, self.clock.now_ms())
            yield from self.report(keys.id, entry)
            return
        message = replace(
            self.message(keys, workflow, what, call.task),
            queue=call.queue or spec.queue or "",
            plain=True,
            args=args,
            kwargs=kwargs,
            task_id=task_id,
            nonce=held.nonce,
        )
        yield Publish((message,))

    def deliver(self, keys: SagaKeys, workflow: Workflow, saga: Saga) -> Flow[None]:
        """Tell who waits; the outbox keeps the command until that is done (rule 14)."""
        data = yield from ask(store.data(keys))
        if (yield outcome_of(saga, workflow, data)):
            yield from ask(store.settle(keys, k.OUTBOX_END))

    # ---- claiming ----

    def claim(
        self,
        saga_id: str,
        kind: Kind,
        step: str,
        attempt: int,
        *,
        delivery: str,
        queue: str,
        version: str = "",
        worker: str = "",
        deadline_ms: int | None = None,
    ) -> Flow[Assignment | None]:
        """Begin an attempt; None if it is no longer to be done.

        ``version`` spares a look-up of the definition where the message brought it;
        ``deadline_ms`` is given for work that sends no heartbeats.
        """
        keys = self.keys(saga_id)
        workflow = yield from self._workflow_of(keys, version)
        if workflow is None or step not in workflow.by_name:
            return None
        now_ms = self.clock.now_ms()
        name = worker or _worker_name(workflow, kind, step)
        info = self.directory.local(name)
        if deadline_ms is None:
            timeout_s = outbox.timeout_of(workflow, step, kind, info.timeout_s if info else None)
            deadline_ms = now_ms + round(timeout_s * 1000) if timeout_s else 0
            lease_ends = self._lease_end(now_ms, deadline_ms)
        else:
            lease_ends = deadline_ms
        retry = info.retry if info else None
        entry = Claimed(now_ms, kind, step, attempt, self._nonce(), self.hostname, retry)
        fields = _data_fields(workflow, kind, step)
        claim = yield from ask(
            store.claim(
                keys,
                entry,
                delivery=delivery,
                lease_ends=lease_ends,
                deadline_ms=deadline_ms,
                fields=fields,
            )
        )
        if claim is None:
            return None
        saga = decode_saga(saga_id, claim.head, {step: claim.step})
        found = dict(zip(fields, claim.data, strict=True))
        return self._assignment(saga, workflow, entry, found, (name, queue, delivery, deadline_ms))

    def _workflow_of(self, keys: SagaKeys, version: str) -> Flow[Workflow | None]:
        if version not in self._workflows:
            view = yield from ask(store.load(keys))
            if not isinstance(view, View) or view.definition is None:
                return None
            version = view.definition
        return (yield from self.workflow(keys, version))

    def _lease_end(self, now_ms: int, deadline_ms: int) -> int:
        end = now_ms + self.settings.lease_ms
        return min(end, deadline_ms) if deadline_ms else end

    def renewal(self, held: Assignment, notes: dict[str, str]) -> Any:
        """The call that renews a lease."""
        end = self._lease_end(self.clock.now_ms(), held.deadline_ms)
        attempt = store.Attempt(held.saga_id, held.kind, held.step, held.attempt, held.nonce)
        return store.renew(self.keys(held.saga_id), attempt, lease_ends=end, notes=notes)

    def _assignment(
        self,
        saga: Saga,
        workflow: Workflow,
        entry: Claimed,
        data: dict[str, str | None],
        call: tuple[str, str, str, int],
    ) -> Assignment:
        name, queue, delivery, deadline_ms = call
        kind, step = entry.kind, entry.step
        generation = saga.steps[step].generation
        results = {
            before: text
            for before in workflow.ancestors(step)
            if (text := data.get(k.result_field(Kind.RUN, before))) is not None
        }
        return Assignment(
            saga_id=saga.id,
            workflow=saga.workflow,
            version=workflow.version,
            kind=kind,
            step=step,
            attempt=entry.attempt,
            nonce=entry.nonce,
            worker=name,
            queue=queue,
            delivery=delivery,
            deadline_ms=deadline_ms,
            timeout_s=(deadline_ms - entry.at_ms) / 1000 if deadline_ms else None,
            meta=json.loads(data.get("meta") or "{}"),
            idempotency_key=ids.idempotency_key(saga.id, step, generation, kind is Kind.UNDO),
            input=data.get("input") or "{}",
            results=results,
            checkpoint=data.get(f"k:{step}") if kind is Kind.RUN else None,
            step_result=data.get(k.result_field(Kind.RUN, step)) if kind is Kind.UNDO else None,
            step_idempotency_key=ids.idempotency_key(saga.id, step),
            error=saga.error,
        )

    # ---- going on in the same process ----

    def _claim_next(
        self, workflow: Workflow, decision: Decision, go_on: Continuation
    ) -> Claimed | None:
        """The claim to write with this decision, if its only command may be done right here."""
        if len(decision.commands) != 1 or not isinstance(decision.commands[0], Dispatch):
            return None
        kind, step, attempt = (
            decision.commands[0].kind,
            decision.commands[0].step,
            decision.commands[0].attempt,
        )
        spec = workflow.by_name[step]
        target = outbox.target_of(spec, kind)
        info = self.directory.local(target) if isinstance(target, str) else None
        if info is None:
            return None
        queue = (spec.queue if kind is Kind.RUN else None) or info.queue
        if queue != go_on.queue:
            return None
        now_ms = self.clock.now_ms()
        return Claimed(now_ms, kind, step, attempt, self._nonce(), self.hostname, info.retry)

    def _plan_claim(
        self, plan: Plan, workflow: Workflow, claim: Claimed, go_on: Continuation
    ) -> None:
        deadline_ms = self._deadline(workflow, claim)
        plan.decided.append(claim)
        plan.claims[k.claim_field(claim.kind, claim.step)] = store.claim_value(
            claim.attempt, claim.nonce, deadline_ms, go_on.delivery
        )
        lease = k.due_lease(go_on.done.saga_id, claim.kind, claim.step, claim.attempt, claim.nonce)
        plan.due[lease] = self._lease_end(claim.at_ms, deadline_ms)

    def _deadline(self, workflow: Workflow, claim: Claimed) -> int:
        info = self.directory.local(_worker_name(workflow, claim.kind, claim.step))
        default_s = info.timeout_s if info else None
        timeout_s = outbox.timeout_of(workflow, claim.step, claim.kind, default_s)
        return claim.at_ms + round(timeout_s * 1000) if timeout_s else 0

    def _next_assignment(
        self, keys: SagaKeys, turn: _Turn, go_on: Continuation
    ) -> Flow[Assignment]:
        claim, workflow, done = turn.next_claim, turn.workflow, go_on.done
        if claim is None:
            raise AssertionError("nothing was claimed")
        fields = _data_fields(workflow, claim.kind, claim.step)
        data = self._data_at_hand(workflow, claim, go_on)
        if data is None:
            found = yield from ask(store.data(keys))
            data = {name: found.get(name) for name in fields}
        name = _worker_name(workflow, claim.kind, claim.step)
        call = (name, go_on.queue, done.delivery, self._deadline(workflow, claim))
        return self._assignment(turn.decision.saga, workflow, claim, data, call)

    def _data_at_hand(
        self, workflow: Workflow, claim: Claimed, go_on: Continuation
    ) -> dict[str, str | None] | None:
        """The next step's data without asking, when it only follows the step just done."""
        done = go_on.done
        follows = workflow.by_name[claim.step].depends_on == (done.step,)
        if claim.kind is not Kind.RUN or done.kind is not Kind.RUN or not follows:
            return None
        if claim.attempt != 1 or go_on.result is None:
            return None
        results = {**done.results, done.step: go_on.result}
        data: dict[str, str | None] = {
            k.result_field(Kind.RUN, step): text for step, text in results.items()
        }
        return {**data, "input": done.input, "meta": json.dumps(done.meta)}

    # ---- starting ----

    def start(
        self,
        workflow: Workflow,
        *,
        saga_id: str,
        waiting: tuple[str, str],
        data: dict[str, str],
        tags: tuple[str, ...] = (),
    ) -> Flow[bool]:
        """Record a saga with its first decision, then send its first commands.

        Durable when it returns.  ``waiting``: the Celery task id that gets the outcome, and its
        canvas as JSON ("" = none).  False: a saga with this id existed, and the task id now waits
        for its outcome too.
        """
        keys = self.keys(saga_id)
        now_ms = self.clock.now_ms()
        blank = _blank(workflow, saga_id, now_ms, data)
        entry = Started(now_ms)
        decision = fold(workflow, blank, (entry,))
        plan = replace(self._plan(blank, decision, "0-0"), state_before=None, decided=[entry])
        new = workflow.version not in self._workflows
        self._workflows[workflow.version] = workflow
        for text in ("" if not new else workflow.canonical(), workflow.canonical()):
            reply = yield from ask(
                store.start(
                    keys,
                    plan,
                    waiting=waiting,
                    definition=(workflow.version, text),
                    reads_values=workflow.has_conditions,
                    data=data,
                    indexes=index_keys(keys, workflow.name, (*workflow.tags, *tags)),
                )
            )
            if reply != store.SEND_DEFINITION:
                break
        if reply == store.CREATED:
            yield from self._committed_start(keys, workflow, plan, decision)
            return True
        yield from self._join(keys)
        return False

    def _committed_start(
        self, keys: SagaKeys, workflow: Workflow, plan: Plan, decision: Decision
    ) -> Flow[None]:
        saga = replace(decision.saga, values={})
        self._remember(plan.version, saga)
        yield from self.send(keys, workflow, saga, plan)

    def _join(self, keys: SagaKeys) -> Flow[None]:
        """A second start of a saga that has ended gets its outcome at once."""
        view = yield from ask(store.load(keys))
        if isinstance(view, View):
            saga, workflow = yield from self._read(keys, view)
            if saga.state in ENDED:
                yield from self.deliver(keys, workflow, saga)


def index_keys(keys: SagaKeys, workflow: str, tags: Iterable[str]) -> tuple[str, ...]:
    """The indexes that list a saga, besides the one of its state."""
    shard = keys.shard
    return (shard.sagas, shard.workflow(workflow), *(shard.labelled(tag) for tag in tags))


def read_saga(saga_id: str, workflow: Workflow, view: View) -> Saga:
    """The saga of a view that brought its state, steps in definition order."""
    rows = view.steps or {}
    return decode_saga(
        saga_id, view.head or [], {name: rows.get(name, []) for name in workflow.by_name}
    )


def has_dead_letters(saga: Saga) -> bool:
    """Whether a step or an undo waits for a person."""
    return any(
        run.state is StepState.PARKED or run.undo_state is UndoState.PARKED
        for run in saga.steps.values()
    )


def refused(held: Assignment, error: Exception, now_ms: int) -> Failed:
    """The report that an attempt never began because its arguments could not be made."""
    return Failed(
        now_ms,
        held.kind,
        held.step,
        held.attempt,
        held.nonce,
        error=Failure(type(error).__name__, str(error)),
        outcome=Outcome.CLEAN,
        retryable=False,
    )


def plain_arguments(
    call: TaskCall, held: Assignment, workflow: Workflow
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a plain task is called with.  Raises ConditionError for an expression that fails."""
    given = json.loads(held.input)
    results = {step: json.loads(text) for step, text in held.results.items()}
    if held.step_result is not None:
        results[held.step] = json.loads(held.step_result)
    if call.args is None and call.kwargs is None:
        context = dict(given)
        for step in workflow.by_name:
            context.update(results.get(step, {}))
        return (context,), {}
    values = {
        "input": given,
        "steps": {step: {"result": result} for step, result in results.items()},
        "result": results.get(held.step, {}),
        "key": held.idempotency_key,
    }
    args = tuple(compute(expression, values) for expression in call.args or ())
    kwargs = {name: compute(expression, values) for name, expression in (call.kwargs or {}).items()}
    return args, kwargs


def outcome_of(saga: Saga, workflow: Workflow, data: dict[str, str]) -> Deliverance:
    """How the saga ended, for those who wait."""
    waiting = {
        name.removeprefix("alias:"): json.loads(canvas or "{}")
        for name, canvas in data.items()
        if name.startswith("alias:")
    }
    if saga.state is SagaState.COMPLETED:
        merged = merged_result(workflow, data)
        return Deliverance(saga.id, saga.state, waiting, result=merged)
    return Deliverance(saga.id, saga.state, waiting, failure=failure_of(saga))


def merged_result(workflow: Workflow, data: dict[str, str]) -> dict[str, Any]:
    """The results of the last steps, later ones over earlier ones."""
    merged: dict[str, Any] = {}
    for step in workflow.last_steps:
        merged.update(json.loads(data.get(k.result_field(Kind.RUN, step), "{}")))
    return merged


def failure_of(saga: Saga) -> dict[str, Any]:
    """The arguments of `SagaFailed` for a saga that did not complete."""
    undo = {
        name: {
            "state": run.undo_state.value,
            "attempts": run.undo.attempt,
            "error": run.undo.error.to_dict() if run.undo.error else None,
        }
        for name, run in saga.steps.items()
        if run.undo_state is not UndoState.NONE
    }
    return {
        "transaction_id": saga.id,
        "state": saga.state.value,
        "step": saga.error_step or None,
        "error": saga.error.to_dict() if saga.error else None,
        "undo": undo,
    }


def _blank(workflow: Workflow, saga_id: str, now_ms: int, data: dict[str, str]) -> Saga:
    blank = new_saga(
        saga_id,
        workflow=workflow.name,
        version=workflow.version,
        steps=tuple(workflow.by_name),
        now_ms=now_ms,
    )
    if not workflow.has_conditions:
        return blank
    return replace(blank, values={"input": json.loads(data["input"]), "results": {}})


def _worker_name(workflow: Workflow, kind: Kind, step: str) -> str:
    target = outbox.target_of(workflow.by_name[step], kind)
    return target if isinstance(target, str) else target.task


def _data_fields(workflow: Workflow, kind: Kind, step: str) -> list[str]:
    fields = ["input", "meta"]
    fields += [k.result_field(Kind.RUN, name) for name in workflow.ancestors(step)]
    if kind is Kind.UNDO:
        return [*fields, k.result_field(Kind.RUN, step)]
    return [*fields, f"k:{step}"]
