"""How is a plain task published, at most once?

A plain task has no code for claims, so the engine claims its attempt before its message is out
(E13); the lease lasts until the timeout.  If the step's data is at hand and the broker is the
saga's own server, the commit that dispatches the task also writes claim and message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from multiagents.core import ids
from multiagents.core.attempt_ref import AttemptRef, OfAttempt
from multiagents.core.clock import Clock
from multiagents.core.entries import Claimed, Failed, Failure
from multiagents.core.fields import claim_field, outbox_field, result_field
from multiagents.core.ports import Assignment, Directory
from multiagents.core.states import FailureEffect, Kind, StepState
from multiagents.engine import messages
from multiagents.engine.claims import Claims
from multiagents.engine.ended_steps import states_of, without_result
from multiagents.engine.headers import headers_of
from multiagents.engine.messages import (
    UNCONFIRMED_MS,
    LetterOf,
    Message,
    NotTaken,
    Publish,
    Unsendable,
    no_letter,
)
from multiagents.saga.commands import Dispatch
from multiagents.saga.state import Saga
from multiagents.storage import keys as k
from multiagents.storage import outbox
from multiagents.storage import sagas as store
from multiagents.storage.commit import Commit, Letter, RefusedWrite
from multiagents.storage.keys import SagaKeys
from multiagents.workflows.expressions import ConditionError, States, before, compute
from multiagents.workflows.step import TaskCall
from multiagents.workflows.workflow import Workflow

NOT_SENT = "-"
"""Before the Celery id in a claim whose message is not out yet."""


@dataclass(frozen=True, slots=True)
class Unsent(OfAttempt):
    """A plain task that is claimed, and whose message is not out."""

    kind: Kind
    step: str
    attempt: int
    nonce: str
    deadline_ms: int
    task_id: str


def unsent(kind: Kind, step: str, claim: str | None) -> Unsent | None:
    """The unsent task of a claim's value; None if it is sent, or there is no claim."""
    if claim is None:
        return None
    attempt, nonce, deadline_ms, holder = claim.split("|", 3)
    if not holder.startswith(NOT_SENT):
        return None
    task_id = holder.removeprefix(NOT_SENT)
    return Unsent(kind, step, int(attempt), nonce, int(deadline_ms), task_id)


@dataclass(frozen=True, slots=True)
class Begun:
    """A plain task that a commit claims and publishes."""

    command: Dispatch
    entry: Claimed
    deadline_ms: int
    task_id: str
    letter: Letter

    def put_into(self, plan: Commit, saga_id: str) -> None:
        """Put the claim and the message into the commit."""
        entry = self.entry
        value = store.claim_value(entry.attempt, entry.nonce, self.deadline_ms, self.task_id)
        plan.decided.append(entry)
        plan.claims[claim_field(entry.kind, entry.step)] = value
        plan.due[k.due_lease(saga_id, entry.ref, entry.nonce)] = self.deadline_ms
        plan.letters[outbox_field(entry.ref)] = self.letter


@dataclass(slots=True)
class PlainTasks:
    """Publishes users' own Celery tasks."""

    clock: Clock
    directory: Directory
    claims: Claims
    letter_of: LetterOf = no_letter

    async def send(
        self, keys: SagaKeys, workflow: Workflow, ref: AttemptRef, call: TaskCall
    ) -> Failed | RefusedWrite | None:
        """Claim, then publish.  If this process dies in between, the step's timeout decides.

        A message that its queue refuses is published by a sweep, see `send_claimed`.
        """
        task_id = ids.step_id(keys.id, *ref)
        deadline_ms = self._deadline_ms(workflow, ref, call)
        holder = task_id if self.letter_of is no_letter else NOT_SENT + task_id
        held, _ = await self.claims.claim(
            keys, workflow, ref, delivery=holder, queue="", deadline_ms=deadline_ms
        )
        if held is None:
            return None
        states: States = {}
        if call.computes:
            states = await states_of(keys, workflow, held.step, held.results)
        try:
            message = self._message(workflow, call, held, task_id, states)
            letter = self.letter_of(message)
        except (ConditionError, Unsendable) as error:
            return refused(held, error, self.clock.now_ms())
        if holder != task_id:
            # Direct publish does both at once.  Else the claim changes first: lost, never twice.
            value = store.claim_value(held.attempt, held.nonce, deadline_ms, task_id)
            attempt = store.Attempt(keys.id, *ref, held.nonce)
            again_ms = self.clock.now_ms() + UNCONFIRMED_MS
            sent = await outbox.plain_sent(
                keys, attempt, value, letter or Letter("", ""), again_ms=again_ms
            )
            if not sent.standing:  # refused; or given up after too long a silence
                return next(iter(sent.refused), None)
        return await self._publish(held, message) if letter is None else None

    async def _publish(self, held: Assignment, message: Message) -> Failed | None:
        """Publish a claimed task through Celery; the failure if that refuses it."""
        try:
            await Publish((message,))
        except Unsendable as error:
            return refused(held, error, self.clock.now_ms())
        except NotTaken as error:
            return refused(held, error, self.clock.now_ms(), retryable=True)
        return None

    async def send_claimed(
        self, keys: SagaKeys, workflow: Workflow, saga: Saga, claim: Unsent
    ) -> Failed | RefusedWrite | None:
        """Publish a claimed task whose message its queue has refused.

        Only by direct publish, which marks the claim as sent in the same step (E13).
        """
        work = saga.steps[claim.step].of(claim.kind)
        call = workflow.by_name[claim.step].target(claim.kind)
        if not isinstance(call, TaskCall) or work.nonce != claim.nonce:
            return None
        entry = Claimed(work.started_at, *claim.ref, claim.nonce)
        data = await store.data(keys)
        ends_ms = claim.deadline_ms
        held = self.claims.on_behalf(saga, workflow, entry, data=data, deadline_ms=ends_ms)
        states: States = {}
        if call.computes:
            states = await states_of(keys, workflow, held.step, held.results)
        try:
            letter = self.letter_of(self._message(workflow, call, held, claim.task_id, states))
        except (ConditionError, Unsendable) as error:
            return refused(held, error, self.clock.now_ms())
        field = claim_field(claim.kind, claim.step)
        if letter is None:
            return RefusedWrite(field, call.queue or "", "only Celery can send it from here")
        value = store.claim_value(claim.attempt, claim.nonce, ends_ms, claim.task_id)
        attempt = store.Attempt(keys.id, *claim.ref, claim.nonce)
        sent = await outbox.plain_sent(keys, attempt, value, letter, ends_ms=ends_ms)
        return next(iter(sent.refused), None)

    async def refuse(
        self, keys: SagaKeys, workflow: Workflow, ref: AttemptRef, error: Unsendable
    ) -> Failed | None:
        """Claim an attempt whose message Celery cannot make, so that it fails like a task."""
        delivery = ids.step_id(keys.id, *ref)
        held, _ = await self.claims.claim(keys, workflow, ref, delivery=delivery, queue="")
        return None if held is None else refused(held, error, self.clock.now_ms())

    def begin(
        self, keys: SagaKeys, workflow: Workflow, saga: Saga, command: Dispatch, data: Data
    ) -> Begun | None:
        """What a commit needs to claim and publish a task; None if the data at hand does not do."""
        call = workflow.by_name[command.step].target(command.kind)
        if not isinstance(call, TaskCall) or not _is_known(workflow, saga, command, data):
            return None
        ref = command.ref
        task_id = ids.step_id(keys.id, *ref)
        deadline_ms = self._deadline_ms(workflow, ref, call)
        entry = self.claims.begin(workflow, command)
        held = self.claims.on_behalf(saga, workflow, entry, data=data, deadline_ms=deadline_ms)
        unseen = without_result(workflow, held.step, held.results)
        states = {name: saga.steps[name].run.state for name in unseen}
        try:
            letter = self.letter_of(self._message(workflow, call, held, task_id, states))
        except (ConditionError, Unsendable):
            return None  # `send` gets the same error, and reports it
        return letter and Begun(command, entry, deadline_ms, task_id, letter)

    def _deadline_ms(self, workflow: Workflow, ref: AttemptRef, call: TaskCall) -> int:
        timeout_s = (
            messages.timeout_of(workflow, ref.step, ref.kind, call.timeout_s) or call.timeout_s
        )
        return self.clock.now_ms() + round(timeout_s * 1000)

    def _message(
        self,
        workflow: Workflow,
        call: TaskCall,
        held: Assignment,
        task_id: str,
        states: States,
    ) -> Message:
        spec = workflow.by_name[held.step]
        args, kwargs = plain_arguments(call, held, states)
        return Message(
            saga_id=held.saga_id,
            kind=held.kind,
            step=held.step,
            attempt=held.attempt,
            task=call.task,
            queue=call.queue or spec.queue or "",
            version=workflow.version,
            sent_ms=self.clock.now_ms(),
            priority=spec.priority,
            plain=True,
            args=args,
            kwargs=kwargs,
            task_id=task_id,
            timeout_s=(held.timeout_s or call.timeout_s),
            travelling=headers_of(held.meta),
        )


Data = Mapping[str, str | None]


def _is_known(workflow: Workflow, saga: Saga, command: Dispatch, data: Data) -> bool:
    """Whether the data holds all results for a step: another step may have ended since."""
    return command.kind is Kind.RUN and all(
        result_field(Kind.RUN, name) in data
        for name in workflow.ancestors(command.step)
        if saga.steps[name].run.state is StepState.SUCCEEDED
    )


def refused(held: Assignment, error: Exception, now_ms: int, *, retryable: bool = False) -> Failed:
    """The report of an attempt that never began: its message could not be made, or was refused."""
    return Failed(
        now_ms,
        *held.ref,
        held.nonce,
        error=Failure(type(error).__name__, str(error)),
        effect=FailureEffect.CLEAN,
        retryable=retryable,
    )


def plain_arguments(
    call: TaskCall, held: Assignment, states: States
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a plain task.  Raises ConditionError for an expression that fails."""
    given = json.loads(held.input)
    results = {step: json.loads(text) for step, text in held.results.items()}
    if held.step_result is not None:
        results[held.step] = json.loads(held.step_result)
    if not call.computes:
        context = dict(given)
        for result in results.values():
            context.update(result)
        return (context,), {}
    values = {
        "input": given,
        "steps": before(results, states),
        "result": results.get(held.step, {}),
        "key": held.idempotency_key,
        "step_key": held.step_idempotency_key,
        "error": held.error.to_dict() if held.error else None,
    }
    args = tuple(compute(text, values, step=held.step) for text in call.args or ())
    kwargs = {
        name: compute(text, values, step=held.step) for name, text in (call.kwargs or {}).items()
    }
    return args, kwargs
