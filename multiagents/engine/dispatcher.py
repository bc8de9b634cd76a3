"""How are commands published?

The process that committed a command publishes it.  A sweep publishes it again if no worker claims
it in time.  Publishing may fail anywhere without harm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice

import structlog

from multiagents.core import ids
from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.clock import Clock
from multiagents.core.effects import Flow
from multiagents.core.entries import Failed, Unroutable
from multiagents.core.exceptions import UnknownSaga
from multiagents.core.fields import OUTBOX_END, outbox_field, parse_outbox_field
from multiagents.core.ports import Directory
from multiagents.core.settings import Settings
from multiagents.core.states import Kind
from multiagents.engine.headers import SagaHeaders
from multiagents.engine.messages import (
    AnswerOf,
    LetterOf,
    Message,
    NotTaken,
    Publish,
    Unsendable,
    no_answer,
    no_letter,
    outbox_value,
)
from multiagents.engine.plain_tasks import PlainTasks
from multiagents.saga.commands import Dispatch
from multiagents.saga.outcome import SagaOutcome, outcome_of
from multiagents.saga.state import Saga
from multiagents.saga.targets import Told
from multiagents.storage import outbox, outcomes
from multiagents.storage.commit import Commit, Letter, RefusedWrite
from multiagents.storage.keys import SagaKeys
from multiagents.storage.replies import End
from multiagents.workflows.step import TaskCall, worker_name
from multiagents.workflows.workflow import Workflow

log = structlog.get_logger(__name__)

CHUNK = 100
"""Messages published before they are confirmed.  A wide fan-out is confirmed in parts, so that no
sweep takes the rest for lost.  Also the most that one script publishes."""

TELLING_MS = 30_000
"""How long one process may take to fire a saga's callbacks before another takes over."""
MOST_LEAVING = 64
"""How many processes may leave a fan-out at the same moment without losing a slot."""

Crew = frozenset[str]
"""Hostnames; or a queue whose workers are not known."""


def _nowhere(saga_id: str, entry: Unroutable) -> Flow[bool]:
    raise AssertionError("the coordinator sets this function")


@dataclass(slots=True)
class Dispatched:
    """The commands that could not be published."""

    failed: list[Failed] = field(default_factory=list)
    """Attempts that could not even begin, to be reported."""
    refused: list[RefusedWrite] = field(default_factory=list)
    """Writes that queues refused; a sweep repeats them."""

    def add(self, found: Failed | RefusedWrite | None) -> None:
        """Add what a plain task's publishing returned; None: it is published, or withdrawn."""
        if isinstance(found, Failed):
            self.failed.append(found)
        elif found is not None:
            self.refused.append(found)


@dataclass(slots=True)
class Dispatcher:
    """Publishes the commands of the outbox."""

    settings: Settings
    clock: Clock
    directory: Directory
    plain: PlainTasks
    letter_of: LetterOf = no_letter
    answer_of: AnswerOf = no_answer
    headers: SagaHeaders = field(default_factory=SagaHeaders)
    nonce: Callable[[], str] = ids.nonce
    record: Callable[[str, Unroutable], Flow[bool]] = _nowhere
    """Logs which callbacks of a saga's end Celery refuses to send."""

    def enclose(self, keys: SagaKeys, workflow: Workflow, plan: Commit) -> None:
        """Let a commit publish its own commands, as far as it can."""
        if self.settings.continuation and len(plan.outbox) > 1:  # one always fits
            self._hold_back(workflow, plan)
        for name in _to_send(plan):
            ref = parse_outbox_field(name)
            target = workflow.by_name[ref.step].target(ref.kind)
            if isinstance(target, TaskCall):
                continue
            if len(plan.letters) == CHUNK:
                return
            message = self.message(keys, workflow, ref, target)
            letter = self.letter_of(message)
            if letter is None:
                return
            plan.letters[name] = letter
            plan.outbox[name] = self._sent(message, 1)

    def holds_back(self, workflow: Workflow, queue: str) -> bool:
        """Whether commands for a queue may be withheld."""
        return workflow.fans_out and self.directory.slots(queue) > 0

    def _hold_back(self, workflow: Workflow, plan: Commit) -> None:
        """Withhold the commands for which no worker has a slot; a free slot continues with one.

        Published all at once, the messages of a wide fan-out would delay all other sagas.  Only
        the slots of workers with the function count: only these can continue.
        """
        sent: Counter[Crew] = Counter()
        crews: dict[tuple[str, str], tuple[Crew, int]] = {}
        held = (outbox_value(plan.now_ms, 0), plan.now_ms + self.settings.lease_ms)
        for name in _to_send(plan):
            kind, step, _ = parse_outbox_field(name)
            spec = workflow.by_name[step]
            worker = spec.worker
            if kind is Kind.RUN and isinstance(worker, str) and not self.directory.alone(worker):
                of = (spec.queue or self.directory.queue_of(worker), worker)
                if of not in crews:
                    crews[of] = self._crew(*of)
                crew, slots = crews[of]
                sent[crew] += 1
                if sent[crew] > slots > 0:
                    plan.held.add(name)
                    plan.outbox[name] = held

    def _crew(self, queue: str, worker: str) -> tuple[Crew, int]:
        """The workers that have a function, and their slots; the whole queue if none has it."""
        crew = self.directory.crew(queue, worker)
        if not crew:
            return frozenset((queue,)), self.directory.slots(queue)
        return frozenset(crew), sum(crew.values())

    async def send(
        self,
        keys: SagaKeys,
        workflow: Workflow,
        saga: Saga,
        *,
        plan: Commit,
        end: End | None = None,
    ) -> Dispatched:
        """Publish the commands that a commit has just put into the outbox."""
        untold: Sequence[RefusedWrite] = ()
        if end is not None:
            untold = await self.deliver(keys, workflow, saga, end)
        names = [name for name in _to_send(plan) if name not in plan.letters]
        if not names:
            return Dispatched(refused=list(untold))
        done = await self.dispatch(keys, workflow, dict.fromkeys(names, 0))
        done.refused += untold
        return done

    async def dispatch(
        self, keys: SagaKeys, workflow: Workflow, commands: dict[str, int]
    ) -> Dispatched:
        """Publish commands: outbox field -> how often it was published before."""
        messages: dict[str, Message] = {}
        done = Dispatched()
        for name in commands:
            ref = parse_outbox_field(name)
            target = workflow.by_name[ref.step].target(ref.kind)
            if isinstance(target, TaskCall):
                done.add(await self.plain.send(keys, workflow, ref, target))
            else:
                messages[name] = self.message(keys, workflow, ref, target)
        for chunk in _chunks(messages):
            letters = self._letters(chunk)
            if not letters and not await self._publish(keys, workflow, chunk, done):
                break
            sent = {name: self._sent(each, commands[name] + 1) for name, each in chunk.items()}
            if sent:
                done.refused += (await outbox.published(keys, sent, letters)).refused
        return done

    async def _publish(
        self, keys: SagaKeys, workflow: Workflow, chunk: dict[str, Message], done: Dispatched
    ) -> bool:
        """Publish messages; False if the broker did not take them.

        A message that Celery cannot make, or that its queue refuses, moves to ``done``.
        """
        left = list(chunk)
        while left:
            try:
                return bool(await Publish(tuple(chunk[name] for name in left)))
            except (Unsendable, NotTaken) as error:
                name = left[error.sent]
                left = left[error.sent + 1 :]
                del chunk[name]
                if isinstance(error, NotTaken):
                    done.add(RefusedWrite(name, error.key, error.reason))
                    continue
                ref = parse_outbox_field(name)
                done.add(await self.plain.refuse(keys, workflow, ref, error))
        return True

    async def hand_on(self, keys: SagaKeys, workflow: Workflow, waiting: list[Dispatch]) -> None:
        """Publish one of these withheld commands, so that the fan-out keeps its slot.

        Only one that is still in the outbox: another process may have begun it since it was read,
        and a command that is written again can be claimed again (E3).
        """
        messages = []
        for found in waiting[:MOST_LEAVING]:
            target = workflow.by_name[found.step].target(found.kind)
            messages.append(self.message(keys, workflow, found.ref, worker_name(target)))
        if not messages:
            return
        letters = list(map(self.letter_of, messages))
        rows = [
            (outbox_field(each.ref), self._sent(each, 1), letter)
            for each, letter in zip(messages, letters, strict=True)
        ]
        which = await outbox.hand_on(keys, rows)
        if which and letters[which - 1] is None:
            with suppress(Unsendable, NotTaken):  # then a sweep looks at it after a lease
                await Publish((messages[which - 1],))

    def _sent(self, message: Message, sends: int) -> tuple[str, int]:
        """The new value of an outbox field, and the time of the next look at it."""
        value = outbox_value(message.sent_ms, sends)
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

    def message(self, keys: SagaKeys, workflow: Workflow, ref: AttemptRef, worker: str) -> Message:
        """The message for an attempt."""
        spec = workflow.by_name[ref.step]
        queue = spec.queue if ref.kind is Kind.RUN else None
        return Message(
            saga_id=keys.id,
            kind=ref.kind,
            step=ref.step,
            attempt=ref.attempt,
            task=worker,
            queue=queue or self.directory.queue_of(worker),
            version=workflow.version,
            sent_ms=self.clock.now_ms(),
            priority=spec.priority,
            travelling=self.headers[keys.id],
        )

    async def deliver(
        self, keys: SagaKeys, workflow: Workflow, saga: Saga, end: End, *, now: Saga | None = None
    ) -> Sequence[RefusedWrite]:
        """Deliver an outcome; the outbox keeps the command until that is done (rule 14).

        ``now``: the present saga, if it has moved since that end.  Returns the results that the
        server refused.
        """
        outcome = outcome_of(saga, workflow, end.data, now=now)
        canvases = [task_id for task_id, canvas in outcome.waiting.items() if canvas]
        if canvases:
            return await self._tell_canvases(keys, outcome, canvases, end)
        answers = self.answer_of(outcome)
        if answers is None:
            told: Told = await outcome
            if not told.done:
                return _untold(told)
        settled = await outcomes.settle(keys, end, answers or ())
        return () if isinstance(settled, int) else settled

    async def _tell_canvases(
        self, keys: SagaKeys, outcome: SagaOutcome, canvases: list[str], end: End
    ) -> Sequence[RefusedWrite]:
        """Fire the canvases that no other process fires now; while one does, the end stays owed.

        A callback that Celery refuses is logged before the end is settled: twice rather than never.
        """
        teller, now_ms = self.nonce(), self.clock.now_ms()
        until_ms = now_ms + TELLING_MS
        call = outcomes.take(keys, canvases, teller=teller, now_ms=now_ms, until_ms=until_ms)
        mine = await call
        others = set(canvases) - mine.keys()
        waiting = {each: {} if each in others else own for each, own in outcome.waiting.items()}
        parked = outcome.settled
        settled = {each: told | parked.get(each, frozenset()) for each, told in mine.items()}
        told: Told = await replace(outcome, waiting=waiting, settled=settled)
        for refusal in told.refused:
            error, at_ms = refusal.error, self.clock.now_ms()
            entry = Unroutable(at_ms, Kind.RUN, "", 0, error, target=refusal.target)
            with suppress(UnknownSaga):  # its retention has just ended
                await self.record(keys.id, entry)
        left = {each.task_id for each in told.refused} if told.done else set(mine)
        # The rest of a canvas that an operator was asked about may be fired by now.
        left |= {each for each in mine if parked.get(each)}
        parts = {each: mine[each] | set(told.parts.get(each, ())) for each in left}
        if parts:
            await outcomes.give_back(keys, parts, teller=teller)
        if told.done:
            owed = "by somebody else" if others else end.owed
            whole = [each for each in mine if each not in left]
            await outcomes.settle(keys, replace(end, owed=owed), told=whole)
        return _untold(told)


def _untold(told: Told) -> Sequence[RefusedWrite]:
    """The result that the server refused; none if it is stored, or the server is away."""
    return (RefusedWrite(OUTBOX_END, "a result", told.refusal),) if told.refusal else ()


def _to_send(plan: Commit) -> list[str]:
    """The outbox fields of a commit whose attempts are to be published."""
    if not plan.outbox:
        return []
    left_out = {OUTBOX_END, *plan.withdrawals, *plan.held}
    return [name for name in plan.outbox if name not in left_out]


def _chunks(messages: dict[str, Message]) -> Iterator[dict[str, Message]]:
    items = iter(messages.items())
    while chunk := dict(islice(items, CHUNK)):
        yield chunk


def note_refused(keys: SagaKeys, refused: Sequence[RefusedWrite]) -> None:
    """Log the writes of a saga that the server refused; a sweep repeats them."""
    for each in refused:
        what = {"saga": keys.id, "command": each.field, "key": each.key, "why": each.reason}
        log.error("the server refused a write; a sweep repeats it", **what)
