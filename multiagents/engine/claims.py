"""How does an attempt begin?

A script writes the claim for a message; a commit writes it for a step with which its process
continues.  Both give an `Assignment`, which carries all data for the function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from multiagents.core import ids
from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.clock import Clock
from multiagents.core.entries import Claimed
from multiagents.core.fields import claim_field, result_field
from multiagents.core.json_text import dumps, loads
from multiagents.core.ports import Assignment, Directory, WorkerInfo
from multiagents.core.settings import Settings
from multiagents.core.states import Kind, SagaState, StepState
from multiagents.engine import messages
from multiagents.engine.saga_reader import late_fields, own_fields, own_result
from multiagents.saga.commands import Dispatch
from multiagents.saga.decide import Decision
from multiagents.saga.state import Saga, StepRun, decode_saga
from multiagents.storage import keys as k
from multiagents.storage import sagas as store
from multiagents.storage.calls import Call
from multiagents.storage.commit import Commit
from multiagents.storage.keys import SagaKeys
from multiagents.storage.replies import Claim, Known, View
from multiagents.workflows.step import worker_name
from multiagents.workflows.workflow import Workflow

OVERRUN_MS = 5000
"""The process that runs an attempt ends it, or gives it up, at its timeout.  If that process renews
the lease all the same, the lease ends this much later."""
_NOT_KNOWN = StepRun()


@dataclass(frozen=True, slots=True)
class Continuation:
    """The slot of a process that has just ended an attempt, ``done``.

    ``queue``: of the process's delivery; ``delivery``: the Celery delivery whose slot it is;
    ``allowed``: whether it may continue with another step, or must leave it to others.
    """

    queue: str
    delivery: str
    done: Assignment
    result: str | None = None
    allowed: bool = True


@dataclass(frozen=True, slots=True)
class Brought:
    """A step's data as JSON text: read with the claim, or at hand from the step before."""

    input: str
    meta: str
    results: dict[str, str]
    merged: str | None = None
    checkpoint: str | None = None
    step_result: str | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms on which an attempt is held.  ``deadline_ms`` 0 = none."""

    worker: str
    queue: str
    delivery: str
    deadline_ms: int
    least_lease_s: float = 0.0


Function = tuple[str, WorkerInfo | None]
"""What does a step's work: its name, and the worker function if this process has it."""


@dataclass(slots=True)
class Claims:
    """Begins attempts."""

    settings: Settings
    clock: Clock
    directory: Directory
    nonce: Callable[[], str]
    hostname: str = field(default="")

    async def claim(
        self,
        keys: SagaKeys,
        workflow: Workflow,
        ref: AttemptRef,
        *,
        delivery: str,
        queue: str,
        deadline_ms: int | None = None,
        known: Known | None = None,
        alone: bool = False,
    ) -> tuple[Assignment | None, View | None]:
        """Claim an attempt; None if it is no longer to be done.

        ``deadline_ms`` is given for work that sends no heartbeats: its lease lasts until then.
        ``known``, ``alone``: see `store.claim`; the view is the state that its reply brings.
        """
        now_ms = self.clock.now_ms()
        function = self._function(workflow, ref.kind, ref.step)
        entry = self._entry(ref, now_ms, function)
        terms = self._terms(workflow, entry, function, (queue, delivery))
        lease_ends, last_ms = self._lease_end(now_ms, terms), _last_moment(terms.deadline_ms)
        if deadline_ms is not None:
            terms = replace(terms, deadline_ms=deadline_ms)
            lease_ends = last_ms = deadline_ms
        fields = _data_fields(workflow, ref.kind, ref.step)
        claim = await store.claim(
            keys,
            entry,
            delivery=delivery,
            lease_ends=lease_ends,
            deadline_ms=last_ms,
            fields=fields,
            known=known,
            alone=alone,
        )
        if claim is None:
            return None, None
        read = dict(zip(fields, claim.data, strict=True))
        held = await self._begun(keys, workflow, entry, terms=terms, claim=claim, data=read)
        return held, claim.view

    async def _begun(
        self,
        keys: SagaKeys,
        workflow: Workflow,
        entry: Claimed,
        *,
        terms: Terms,
        claim: Claim,
        data: dict[str, str | None],
    ) -> Assignment:
        """What the claim script has begun; an undo may need a late result too."""
        step = entry.step
        names = (workflow.name, workflow.version)
        saga = decode_saga(keys.id, names, head=claim.head, steps={step: claim.step})
        late = late_fields(saga.steps[step])
        if entry.kind is Kind.UNDO and late and data[result_field(Kind.RUN, step)] is None:
            data |= zip(late, await store.some_data(keys, late), strict=True)
        return _assignment(saga, workflow, entry, _brought(workflow, saga, entry, data), terms)

    def next_ready(
        self, workflow: Workflow, decision: Decision, slot: Continuation
    ) -> Dispatch | None:
        """The first of a decision's commands that this process could run."""
        for command in decision.to_begin:
            if self._is_for(workflow, command, slot.queue):
                return command
        return None

    def waiting(
        self, workflow: Workflow, saga: Saga, step: str, queue: str, *, most: int | None = None
    ) -> list[Dispatch]:
        """The unclaimed steps of a fan-out that this process could run.

        From ``step`` backwards, and then from the last one: published steps lie in front.
        """
        found: list[Dispatch] = []
        if saga.state is not SagaState.RUNNING or saga.halting:
            return found
        names = workflow.names
        place = workflow.position[step]
        for at in (*range(place - 1, -1, -1), *range(len(names) - 1, place, -1)):
            run = saga.steps[names[at]].run
            if run.state is StepState.DISPATCHED:
                each = Dispatch(Kind.RUN, names[at], run.attempt)
                if self._is_for(workflow, each, queue):
                    found.append(each)
                    if len(found) == most:
                        break
        return found

    def _is_for(self, workflow: Workflow, dispatch: Dispatch, queue: str) -> bool:
        """Whether this process has the function, and the step belongs to this queue."""
        spec = workflow.by_name[dispatch.step]
        target = spec.target(dispatch.kind)
        info = self.directory.local(target) if isinstance(target, str) else None
        wanted = spec.queue if dispatch.kind is Kind.RUN else None
        return info is not None and not info.alone and (wanted or info.queue) == queue

    def on_behalf(
        self,
        saga: Saga,
        workflow: Workflow,
        entry: Claimed,
        *,
        data: Mapping[str, str | None],
        deadline_ms: int,
    ) -> Assignment:
        """The assignment of a plain task that the engine claims."""
        terms = Terms(_name(workflow, entry.kind, entry.step), "", "", deadline_ms)
        return _assignment(saga, workflow, entry, _brought(workflow, saga, entry, data), terms)

    def begin(self, workflow: Workflow, dispatch: Dispatch) -> Claimed:
        """The entry of a claim that a commit is to write."""
        function = self._function(workflow, dispatch.kind, dispatch.step)
        return self._entry(dispatch.ref, self.clock.now_ms(), function)

    def begin_here(
        self, workflow: Workflow, dispatch: Dispatch, slot: Continuation
    ) -> tuple[Claimed, Terms]:
        """Likewise, for what this process goes on with, and on which terms."""
        function = self._function(workflow, dispatch.kind, dispatch.step)
        claim = self._entry(dispatch.ref, self.clock.now_ms(), function)
        return claim, self._terms(workflow, claim, function, (slot.queue, slot.delivery))

    def plan_claim(self, plan: Commit, saga_id: str, claim: Claimed, terms: Terms) -> None:
        """Have a commit write a claim instead of the command."""
        last_ms = _last_moment(terms.deadline_ms)
        value = store.claim_value(claim.attempt, claim.nonce, last_ms, terms.delivery)
        plan.decided.append(claim)
        plan.claims[claim_field(claim.kind, claim.step)] = value
        lease = k.due_lease(saga_id, claim.ref, claim.nonce)
        plan.due[lease] = self._lease_end(claim.at_ms, terms)

    async def next_assignment(
        self,
        keys: SagaKeys,
        saga: Saga,
        workflow: Workflow,
        begun: tuple[Claimed, Terms],
        go_on: Continuation,
    ) -> Assignment:
        """The assignment of a claim that a commit has written."""
        claim, terms = begun
        brought = _at_hand(workflow, saga, claim, go_on)
        if brought is None:
            run = saga.steps[claim.step]
            fields = _data_fields(workflow, claim.kind, claim.step, run)
            found = await store.some_data(keys, fields)
            brought = _brought(workflow, saga, claim, dict(zip(fields, found, strict=True)))
        return _assignment(saga, workflow, claim, brought, terms)

    def renewal(self, keys: SagaKeys, held: Assignment, notes: dict[str, str]) -> Call[bool]:
        """The call that renews a lease."""
        end = self._lease_end(self.clock.now_ms(), held)
        attempt = store.Attempt(held.saga_id, *held.ref, held.nonce)
        return store.renew(keys, attempt, lease_ends=end, notes=notes)

    def _function(self, workflow: Workflow, kind: Kind, step: str) -> Function:
        name = _name(workflow, kind, step)
        return name, self.directory.local(name)

    def _entry(self, ref: AttemptRef, now_ms: int, function: Function) -> Claimed:
        _, info = function
        retry = info.retry if info else None
        return Claimed(now_ms, *ref, self.nonce(), self.hostname, retry)

    def _terms(
        self, workflow: Workflow, claim: Claimed, function: Function, origin: tuple[str, str]
    ) -> Terms:
        """``origin``: the queue and the delivery that pay for it."""
        name, info = function
        default_s = info.timeout_s if info else None
        timeout_s = messages.timeout_of(workflow, claim.step, claim.kind, default_s)
        deadline_ms = claim.at_ms + round(timeout_s * 1000) if timeout_s else 0
        return Terms(name, *origin, deadline_ms, info.least_lease_s if info else 0.0)

    def _lease_end(self, now_ms: int, terms: Terms | Assignment) -> int:
        end = now_ms + max(self.settings.lease_ms, round(terms.least_lease_s * 1000))
        return min(end, _last_moment(terms.deadline_ms)) if terms.deadline_ms else end


def _last_moment(deadline_ms: int) -> int:
    """When an attempt's lease ends at the latest; 0 for one without a timeout."""
    return deadline_ms + OVERRUN_MS if deadline_ms else 0


def _name(workflow: Workflow, kind: Kind, step: str) -> str:
    return worker_name(workflow.by_name[step].target(kind))


def _data_fields(workflow: Workflow, kind: Kind, step: str, run: StepRun = _NOT_KNOWN) -> list[str]:
    fields = ["input", "meta"]
    fields += [result_field(Kind.RUN, name) for name in workflow.ancestors(step)]
    return [*fields, *(own_fields(step, run) if kind is Kind.UNDO else (f"k:{step}",))]


def _brought(
    workflow: Workflow, saga: Saga, claim: Claimed, data: Mapping[str, str | None]
) -> Brought:
    """A step's data from the fields of the data hash."""
    undo, run = claim.kind is Kind.UNDO, saga.steps[claim.step]
    return Brought(
        input=data.get("input") or "{}",
        meta=data.get("meta") or "{}",
        results=dict(_found(workflow.ancestors(claim.step), data)),
        checkpoint=None if undo else data.get(f"k:{claim.step}"),
        step_result=own_result(claim.step, run, data) if undo else None,
    )


def _found(steps: tuple[str, ...], data: Mapping[str, str | None]) -> Iterator[tuple[str, str]]:
    for step in steps:
        text = data.get(result_field(Kind.RUN, step))
        if text is not None:
            yield step, text


def _at_hand(workflow: Workflow, saga: Saga, claim: Claimed, go_on: Continuation) -> Brought | None:
    """The next step's data without a read, if it follows only the step just done.

    Its context is then that step's context, overlaid with the new result.  The result must count:
    a late one does not, if another attempt or an operator has settled the step (fencing).  A step
    with the same ancestors has the same context.
    """
    done = go_on.done
    if claim.kind is not Kind.RUN or done.kind is not Kind.RUN or claim.attempt != 1:
        return None
    if workflow.ancestors(claim.step) == workflow.ancestors(done.step):
        return Brought(done.input, done.meta, done.results, done.merged)
    if workflow.by_name[claim.step].depends_on != (done.step,) or go_on.result is None:
        return None
    if not saga.steps[done.step].returned(done.nonce):
        return None
    before = loads(done.merged) if done.merged is not None else _merge(done)
    before.update(loads(go_on.result))
    return Brought(
        input=done.input,
        meta=done.meta,
        results={**done.results, done.step: go_on.result},
        merged=dumps(before),
    )


def _merge(held: Assignment) -> dict[str, object]:
    merged: dict[str, object] = loads(held.input)
    for text in held.results.values():
        merged.update(loads(text))
    return merged


def _assignment(
    saga: Saga, workflow: Workflow, entry: Claimed, brought: Brought, terms: Terms
) -> Assignment:
    kind, step = entry.kind, entry.step
    deadline_ms = terms.deadline_ms
    key = step_key = ids.idempotency_key(saga.id, step)
    if kind is Kind.UNDO:
        key = ids.idempotency_key(saga.id, step, saga.steps[step].generation, True)
    return Assignment(
        saga_id=saga.id,
        workflow=saga.workflow,
        version=workflow.version,
        kind=kind,
        step=step,
        attempt=entry.attempt,
        nonce=entry.nonce,
        worker=terms.worker,
        queue=terms.queue,
        delivery=terms.delivery,
        deadline_ms=deadline_ms,
        least_lease_s=terms.least_lease_s,
        timeout_s=(deadline_ms - entry.at_ms) / 1000 if deadline_ms else None,
        meta=brought.meta,
        idempotency_key=key,
        input=brought.input,
        results=brought.results,
        merged=brought.merged,
        checkpoint=brought.checkpoint,
        step_result=brought.step_result,
        step_idempotency_key=step_key,
        error=saga.error,
    )
