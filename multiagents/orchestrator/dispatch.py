"""How are commands sent?

What stands in the outbox is sent by the process that committed it, and again by a sweep if it is
not claimed in time.  Sending may fail anywhere without harm.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from multiagents.core import ids
from multiagents.core.clock import Clock
from multiagents.core.entries import Failed, Failure
from multiagents.core.ports import Assignment, Directory
from multiagents.core.settings import Settings
from multiagents.core.states import ENDED, Kind, Outcome, StepState
from multiagents.orchestrator import outbox
from multiagents.orchestrator.claims import Claims
from multiagents.orchestrator.conditions import ConditionError, compute
from multiagents.orchestrator.outbox import Message, Publish
from multiagents.orchestrator.outcome import outcome_of
from multiagents.orchestrator.saga import Saga
from multiagents.orchestrator.workflow import TaskCall, Workflow
from multiagents.storage import keys as k
from multiagents.storage import sagas as store
from multiagents.storage.calls import Flow, ask
from multiagents.storage.keys import SagaKeys
from multiagents.storage.sagas import Letter, Plan
from multiagents.storage.views import End

CHUNK = 100
"""Messages sent before their sending is confirmed: a wide fan-out is confirmed as it goes, so
that no sweep takes what is still being sent for lost.  And the most that one script sends."""

What = tuple[Kind, str, int]
LetterOf = Callable[[Message], Letter | None]


def no_letter(message: Message) -> Letter | None:
    """For brokers elsewhere: every message goes through Celery."""
    return None


@dataclass(slots=True)
class Dispatcher:
    """Sends what the outbox holds."""

    settings: Settings
    clock: Clock
    directory: Directory
    claims: Claims
    letter_of: LetterOf = no_letter
    """Writes a message for a queue on the store's own server, if that is where the broker is."""

    def enclose(self, keys: SagaKeys, workflow: Workflow, plan: Plan) -> None:
        """Have a commit send its own commands, as far as that can be done."""
        if self.settings.continuation:
            self._hold_back(workflow, plan)
        for name in _to_send(plan):
            what = k.parse_outbox_field(name)
            target = outbox.target_of(workflow.by_name[what[1]], what[0])
            if isinstance(target, TaskCall):
                continue
            message = self.message(keys, workflow, what, target)
            letter = self.letter_of(message)
            if letter is None or len(plan.letters) == CHUNK:
                return
            plan.letters[name] = letter
            plan.outbox[name] = self._sent(message, 1)

    def _hold_back(self, workflow: Workflow, plan: Plan) -> None:
        """Leave in the outbox what no worker has a slot for: who ends a step goes on with it.

        Sent all at once, the messages of a wide fan-out would keep everybody else waiting.
        """
        sent: Counter[str] = Counter()
        held = (outbox.outbox_value(plan.now_ms, 0), plan.now_ms + self.settings.lease_ms)
        for name in _to_send(plan):
            kind, step, _ = k.parse_outbox_field(name)
            spec = workflow.by_name[step]
            if kind is Kind.RUN and isinstance(spec.worker, str):
                queue = spec.queue or self.directory.queue_of(spec.worker)
                sent[queue] += 1
                if sent[queue] > self.directory.slots(queue) > 0:
                    plan.held.add(name)
                    plan.outbox[name] = held

    def send(
        self,
        keys: SagaKeys,
        workflow: Workflow,
        saga: Saga,
        *,
        plan: Plan,
        end: End | None = None,
    ) -> Flow[list[Failed]]:
        """Send what a commit has just put into the outbox; what could not even begin comes back."""
        # A saga that was reopened at once is left to a sweep, which finds its first end.
        if end is not None and saga.state in ENDED:
            yield from self.deliver(keys, workflow, saga, end)
        names = [name for name in _to_send(plan) if name not in plan.letters]
        return (yield from self.dispatch(keys, workflow, dict.fromkeys(names, 0)))

    def dispatch(
        self, keys: SagaKeys, workflow: Workflow, commands: dict[str, int]
    ) -> Flow[list[Failed]]:
        """Send commands: outbox field -> how often it was sent before."""
        messages: dict[str, Message] = {}
        refused: list[Failed] = []
        for name in commands:
            what = k.parse_outbox_field(name)
            target = outbox.target_of(workflow.by_name[what[1]], what[0])
            if isinstance(target, TaskCall):
                refusal = yield from self._send_plain(keys, workflow, what, target)
                refused += [refusal] if refusal else []
            else:
                messages[name] = self.message(keys, workflow, what, target)
        for chunk in _chunks(messages):
            letters = self._letters(chunk)
            if not letters and not (yield Publish(tuple(chunk.values()))):
                break
            sent = {name: self._sent(each, commands[name] + 1) for name, each in chunk.items()}
            yield from ask(store.published(keys, sent, letters))
        return refused

    def _sent(self, message: Message, sends: int) -> tuple[str, int]:
        """What an outbox field holds from now on, and when it is looked at again."""
        value = outbox.outbox_value(message.sent_ms, sends)
        return value, self.clock.now_ms() + self.settings.lease_ms

    def _letters(self, messages: dict[str, Message]) -> dict[str, Letter]:
        """All of the messages as letters, or none."""
        found: dict[str, Letter] = {}
        for name, message in messages.items():
            letter = self.letter_of(message)
            if letter is None:
                return {}
            found[name] = letter
        return found

    def message(self, keys: SagaKeys, workflow: Workflow, what: What, worker: str) -> Message:
        """The message that asks a worker for an attempt."""
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
        self, keys: SagaKeys, workflow: Workflow, what: What, call: TaskCall
    ) -> Flow[Failed | None]:
        """Send a plain Celery task, at most once: it is claimed on its behalf first (E13).

        Should this process die before the message is out, the step's time-out decides.
        """
        kind, step, attempt = what
        task_id = ids.derived_id(keys.id, kind, step, attempt)
        timeout_s = outbox.timeout_of(workflow, step, kind, call.timeout_s) or call.timeout_s
        deadline_ms = self.clock.now_ms() + round(timeout_s * 1000)
        held, _ = yield from self.claims.claim(
            keys, workflow, what, delivery=task_id, queue="", deadline_ms=deadline_ms
        )
        if held is None:
            return None
        try:
            held = replace(held, before=workflow.ancestors(step))
            args, kwargs = plain_arguments(call, held)
        except ConditionError as error:
            return _refused(held, error, self.clock.now_ms())
        message = replace(
            self.message(keys, workflow, what, call.task),
            queue=call.queue or workflow.by_name[step].queue or "",
            plain=True,
            args=args,
            kwargs=kwargs,
            task_id=task_id,
        )
        yield Publish((message,))
        return None

    def deliver(self, keys: SagaKeys, workflow: Workflow, saga: Saga, end: End) -> Flow[None]:
        """Tell who waits; the outbox keeps the command until that is done (rule 14)."""
        if (yield outcome_of(saga, workflow, end.data)):
            yield from ask(store.settle_end(keys, end.log))


def _to_send(plan: Plan) -> list[str]:
    """The outbox fields of a plan that ask for an attempt."""
    left_out = {k.OUTBOX_END, *plan.withdrawals, *plan.held}
    return [name for name in plan.outbox if name not in left_out]


def _chunks(messages: dict[str, Message]) -> Iterator[dict[str, Message]]:
    items = iter(messages.items())
    while chunk := dict(islice(items, CHUNK)):
        yield chunk


def _refused(held: Assignment, error: Exception, now_ms: int) -> Failed:
    """The report of an attempt that never began: its arguments could not be made."""
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


def _seen(step: str, results: dict[str, Any]) -> dict[str, Any]:
    """An ended step as expressions see it: what has no result was skipped."""
    if step in results:
        return {"state": StepState.SUCCEEDED.value, "result": results[step]}
    return {"state": StepState.SKIPPED.value}


def plain_arguments(call: TaskCall, held: Assignment) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a plain task is called with.  Raises ConditionError for an expression that fails."""
    given = json.loads(held.input)
    results = {step: json.loads(text) for step, text in held.results.items()}
    if held.step_result is not None:
        results[held.step] = json.loads(held.step_result)
    if call.args is None and call.kwargs is None:
        context = dict(given)
        for result in results.values():
            context.update(result)
        return (context,), {}
    values = {
        "input": given,
        "steps": {step: _seen(step, results) for step in (*held.before, *results)},
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
