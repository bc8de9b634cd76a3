"""What is under way in a saga, or held up, and by what?

A sentence for each step or undo that is running, sent, held back, waiting for its next attempt,
or parked.  Of a user's own Celery task only what is known: it is claimed on its behalf when it is
sent (E13), so that its state says "running" from then on.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from multiagents.core.policies import DEFAULT_RETRY, UNDO_RETRY
from multiagents.core.states import Kind, StepState
from multiagents.orchestrator.attention import parked_at
from multiagents.orchestrator.commands import retry_timer
from multiagents.orchestrator.describe import iso
from multiagents.orchestrator.explanation import SHOWN, Reason, Situation, span
from multiagents.orchestrator.late import LateSuccesses
from multiagents.orchestrator.outbox import parse_outbox_value, target_of
from multiagents.orchestrator.plain import NOT_SENT
from multiagents.orchestrator.sweeper import Backlog
from multiagents.orchestrator.workflow import TaskCall, worker_name
from multiagents.storage import keys as k

BUSY = ("running", "dispatched", "retrying", "parked")
"""States of a step or an undo that are told of; what is parked is told of last."""


@dataclass(frozen=True, slots=True)
class Task:
    """One step's run or undo that has begun and not ended."""

    step: str
    kind: Kind
    state: str

    @property
    def name(self) -> str:
        return f"{'step' if self.kind is Kind.RUN else 'the undo of'} {self.step!r}"

    @property
    def called(self) -> str:
        return "step" if self.kind is Kind.RUN else "undo"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known of queues and workers."""

    work: Mapping[str, str] = field(default_factory=dict)
    """Outbox and claims."""
    fleet: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    queue_of: Mapping[str, str] = field(default_factory=dict)
    """By outbox field; empty where the app that sends a plain task decides."""
    backlogs: Mapping[str, Backlog] = field(default_factory=dict)
    """Likewise; one that is not there could not be looked into."""
    progress: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By step."""
    late: LateSuccesses = field(default_factory=dict)


def tasks_of(now: Situation) -> list[Task]:
    """What has begun and not ended, in definition order, what is parked last."""
    found = [
        Task(name, kind, state.value)
        for name, run in now.saga.steps.items()
        for kind, state in ((Kind.RUN, run.state), (Kind.UNDO, run.undo_state))
        if state.value in BUSY
    ]
    return sorted(found, key=lambda task: task.state == StepState.PARKED.value)


def shown(tasks: Sequence[Task]) -> list[Task]:
    """The first of each state: the sentences are for a person."""
    return [
        task for state in BUSY for task in [each for each in tasks if each.state == state][:SHOWN]
    ]


def underway(now: Situation, around: Surroundings, tasks: Sequence[Task]) -> Iterator[Reason]:
    """A reason for each of these; of those left out how many there are."""
    told = shown(tasks)
    for task in told:
        match task.state:
            case StepState.RUNNING.value if plain_task(now, task):
                yield _unreported(now, around, task)
            case StepState.RUNNING.value:
                yield _running(now, around, task)
            case StepState.DISPATCHED.value:
                yield _dispatched(now, around, task)
            case StepState.RETRYING.value:
                yield _retrying(now, task)
            case _:
                yield _parked(now, around, task)
    for state in BUSY:
        left = sum(task.state == state for task in tasks) - sum(t.state == state for t in told)
        if left:
            yield Reason("more", f"{left} more are {state}.", facts={"state": state, "count": left})


def members_of(now: Situation, tasks: Sequence[Task]) -> list[str]:
    """The due members whose times are wanted."""
    found = []
    for task in tasks:
        work = now.saga.steps[task.step].of(task.kind)
        what = (task.kind, task.step, work.attempt)
        if task.state == StepState.RUNNING.value:
            found.append(k.due_lease(now.saga.id, *what, work.nonce))
        elif task.state == StepState.DISPATCHED.value:
            found.append(k.due_outbox(now.saga.id, k.outbox_field(*what)))
        elif task.state == StepState.RETRYING.value:
            found.append(k.due_timer(now.saga.id, retry_timer(*what)))
    return found


def plain_task(now: Situation, task: Task) -> TaskCall | None:
    """The user's own Celery task that does this work, if that is what does it."""
    target = target_of(now.workflow.by_name[task.step], task.kind)
    return target if isinstance(target, TaskCall) else None


def field_of(now: Situation, task: Task) -> str:
    """The outbox field of its present attempt."""
    return k.outbox_field(task.kind, task.step, now.saga.steps[task.step].of(task.kind).attempt)


def _reason(now: Situation, task: Task, code: str, text: str, **more: Any) -> Reason:
    work = now.saga.steps[task.step].of(task.kind)
    facts = {"attempt": work.attempt, **more.pop("facts", {})}
    text = text[0].upper() + text[1:]
    return Reason(code, text, step=task.step, kind=task.called, facts=facts, **more)


# ---- running ----


def _running(now: Situation, around: Surroundings, task: Task) -> Reason:
    work = now.saga.steps[task.step].of(task.kind)
    where = f"on {work.worker}" if work.worker else "in a worker"
    since = span(max(0, now.now_ms - work.started_at))
    lease_ms = _lease_end(now, task)
    text = f"{task.name} (attempt {work.attempt}) has been running {where} for {since}"
    text += f"{_progress(around, task)}{_silent(around, work.worker)}; {_lease(now, lease_ms)}"
    facts = {"worker": work.worker or None, "started_at": iso(work.started_at)}
    at = iso(lease_ms) if lease_ms else None
    return _reason(now, task, "running", text, at=at, facts=facts)


def _lease_end(now: Situation, task: Task) -> int | None:
    """When its lease, or a plain task's time-out, is over; None: it has reported."""
    work = now.saga.steps[task.step].of(task.kind)
    return now.due.get(k.due_lease(now.saga.id, task.kind, task.step, work.attempt, work.nonce))


def _progress(around: Surroundings, task: Task) -> str:
    told = around.progress.get(task.step) if task.kind is Kind.RUN else None
    if not told:
        return ""
    share = told.get("progress")
    parts = [f"{share:.0%}" if share is not None else "", told.get("note") or ""]
    return f", at {', '.join(part for part in parts if part)}"


def _silent(around: Surroundings, worker: str) -> str:
    gone = worker and around.fleet and worker not in around.fleet
    return ", which is not among the running workers" if gone else ""


def _lease(now: Situation, lease_ms: int | None) -> str:
    if lease_ms is None:
        return "it has just reported."
    if lease_ms > now.now_ms:
        return (
            f"its lease lasts until {now.when(lease_ms)} and is renewed while its worker lives;"
            " should it run out, the attempt counts as lost."
        )
    return f"its lease ran out at {now.when(lease_ms)}: {_who_notices(now)}."


def _who_notices(now: Situation) -> str:
    return "a worker's sweep takes it for lost" if now.workers else "no worker runs to notice it"


# ---- sent, and not reported: plain tasks ----


def _unreported(now: Situation, around: Surroundings, task: Task) -> Reason:
    work, call = now.saga.steps[task.step].of(task.kind), plain_task(now, task)
    queue = around.queue_of.get(field_of(now, task), "")
    backlog = around.backlogs.get(field_of(now, task), Backlog(None))
    end_ms = _lease_end(now, task)
    code, known = "unreported", _known_of(now, around, task, queue, backlog)
    if end_ms is None:
        known = "It has just reported."
    elif _is_unsent(around, task, work.nonce):
        code, known = "not_sent", "Its message is not known to be sent, and is not sent again."
    text = (
        f"{task.name} (attempt {work.attempt}) is the Celery task {call and call.task!r}. {known}"
    )
    if end_ms:
        over = f"If it does not report, its time-out decides, at {now.when(end_ms)}"
        if end_ms <= now.now_ms:
            over = f"Its time-out was over at {now.when(end_ms)}: {_who_notices(now)}"
        text += f" {over}."
    facts = {
        "worker_function": call and call.task,
        "queue": queue or None,
        "sent_at": iso(work.started_at) if code == "unreported" else None,
        "waiting": backlog.length,
        "consumers": list(_consumers(around, queue)),
    }
    return _reason(now, task, code, text, at=iso(end_ms) if end_ms else None, facts=facts)


def _is_unsent(around: Surroundings, task: Task, nonce: str) -> bool:
    """Whether the process that claimed it on its behalf has not noted that it sends it."""
    claim = around.work.get(k.claim_field(task.kind, task.step), "")
    return claim.split("|")[1:2] == [nonce] and claim.split("|", 3)[3].startswith(NOT_SENT)


def _known_of(
    now: Situation, around: Surroundings, task: Task, queue: str, backlog: Backlog
) -> str:
    """What can be said of a task that has been sent and says nothing until its end."""
    ago = span(max(0, now.now_ms - now.saga.steps[task.step].of(task.kind).started_at))
    if not queue:
        return (
            f"It was sent {ago} ago, to the queue that the routes of its app give it, and has not"
            " reported; whether it has begun is not known."
        )
    sent = f"It was sent {ago} ago to queue {queue!r} and has not reported; whether it has begun is"
    match backlog.length:
        case None:
            waits = "the broker cannot be looked into"
        case 0:
            waits = (
                "the queue is empty, so a worker has the message, at work on it or not, or it is"
                " lost"
            )
        case 1:
            waits = "1 message waits there, perhaps its own"
        case count:
            waits = f"{count} messages wait there, perhaps its own among them"
    return f"{sent} not known: {waits}. {_consumed(around, queue)}."


def _consumed(around: Surroundings, queue: str) -> str:
    """Who is known to consume a queue: a worker without `attach` tells nobody that it runs."""
    consumers = _consumers(around, queue)
    if consumers:
        slots = sum(each.get("slots", 1) for each in consumers.values())
        return f"That queue is consumed by {', '.join(consumers)}, with {slots} slots"
    return (
        "No running worker that hosts sagas consumes that queue; whether another worker of its app"
        " does is not known here (`celery -A YOUR_APP inspect active_queues`)"
    )


# ---- retrying, parked ----


def _retrying(now: Situation, task: Task) -> Reason:
    run, spec = now.saga.steps[task.step], now.workflow.by_name[task.step]
    work = run.of(task.kind)
    own = spec.retry if task.kind is Kind.RUN else spec.compensation_retry
    default = DEFAULT_RETRY if task.kind is Kind.RUN else UNDO_RETRY
    most = (own or work.retry or default).max_attempts
    timer = k.due_timer(now.saga.id, retry_timer(task.kind, task.step, work.attempt))
    at_ms = now.due.get(timer) or work.retry_at
    text = f"{task.name} waits for try {work.tries + 1} of {most}"
    text += f", at {now.when(at_ms)}" if at_ms else ", which is due"
    text += f"; last error: {_error(now, task)}."
    if not now.workers:
        text += " No worker runs that would begin it."
    facts = {"tries": work.tries, "max_attempts": most}
    return _reason(now, task, "retrying", text, at=iso(at_ms) if at_ms else None, facts=facts)


def _parked(now: Situation, around: Surroundings, task: Task) -> Reason:
    late = around.late.get((task.kind, task.step), [])
    work = now.saga.steps[task.step].of(task.kind)
    since = now.when(parked_at(now.saga, task.step, task.kind))
    attempts = f"{work.attempt} attempt{'' if work.attempt == 1 else 's'}"
    text = f"{task.name} is parked since {since}, after {attempts}: {_error(now, task)}."
    for each in late:
        text += f" Attempt {each.attempt} reported success at {now.when(each.at_ms)}, after it was"
        text += " given up: what it does may well be done."
    text += (
        " Only a person moves it on: try it again, skip it, or resolve it after doing it by hand."
    )
    what = f"{now.saga.id} {task.step}"
    commands = (
        f"multiagents retry {what}",
        f'multiagents dead-letters skip {what} --reason "..."',
        f'multiagents dead-letters resolve {what} --reason "..."',
    )
    facts = {"late_successes": [each.to_dict() for each in late]}
    return _reason(now, task, "parked", text, commands=commands, facts=facts)


def _error(now: Situation, task: Task) -> str:
    error = now.saga.steps[task.step].of(task.kind).error
    return f"{error.type}: {error.message}" if error else "not known"


# ---- sent, or not yet ----


def _dispatched(now: Situation, around: Surroundings, task: Task) -> Reason:
    work = now.saga.steps[task.step].of(task.kind)
    name = field_of(now, task)
    value = around.work.get(name)
    target = target_of(now.workflow.by_name[task.step], task.kind)
    queue = around.queue_of.get(name, "")
    again_ms = now.due.get(k.due_outbox(now.saga.id, name))
    code, why = "claimed", "a worker has just begun it."
    if value is not None:
        sent_ms, sends = parse_outbox_value(value)
        if sends:
            code, why = _not_claimed(around, name, worker_name(target))
            times = "" if sends == 1 else f", {sends} times so far"
            sent = f"its message was sent to queue {queue!r} {span(now.now_ms - sent_ms)} ago"
            why = f"{sent}{times}, and nobody has claimed it: {why}"
        else:
            code, why = _not_sent(now, around, queue, sent_ms)
    if again_ms and code not in ("claimed", "held_back"):
        why += f" It is looked at again at {now.when(again_ms)}."
    facts = {"queue": queue or None, "worker_function": worker_name(target)}
    text = f"{task.name} (attempt {work.attempt}): {why}"
    at = iso(again_ms) if again_ms else None
    commands = _start_worker(queue) if code in ("no_worker", "no_consumer") else ()
    return _reason(now, task, code, text, at=at, commands=commands, facts=facts)


def _not_sent(now: Situation, around: Surroundings, queue: str, held_ms: int) -> tuple[str, str]:
    if not held_ms:
        return "not_sent", "its message is not known to be sent yet."
    slots = sum(each.get("slots", 1) for each in _consumers(around, queue).values())
    taken = f"the {slots} slots" if slots else "all slots"
    return "held_back", (
        f"it waits since {now.when(held_ms)} for one of {taken} of queue {queue!r}; the process"
        " that ends another branch goes on with it."
    )


def _not_claimed(around: Surroundings, name: str, function: str) -> tuple[str, str]:
    """Why a message that was sent, of that outbox field, is not claimed."""
    queue = around.queue_of.get(name, "")
    consumers = _consumers(around, queue)
    if not around.fleet:
        return "no_worker", "no worker is running."
    if not consumers:
        running = ", ".join(
            f"{host} ({', '.join(each['queues'])})" for host, each in around.fleet.items()
        )
        return "no_consumer", f"nobody consumes that queue; running: {running}."
    if not any(function in each["workers"] for each in around.fleet.values()):
        return "unknown_function", (
            f"no running worker has the function {function!r}; sent some times more, it is parked."
        )
    backlog = around.backlogs.get(name)
    if backlog is None or backlog.length is None:
        return "sent", "the broker cannot be looked into."
    if backlog.length:
        slots = sum(each.get("slots", 1) for each in consumers.values())
        count = "1 message waits" if backlog.length == 1 else f"{backlog.length} messages wait"
        return "queued", f"{count} there, for {slots} slots of {', '.join(consumers)}."
    return "sent", (
        "the queue is empty, so a worker holds the message or it is lost; then it is sent again."
    )


def _consumers(around: Surroundings, queue: str) -> dict[str, Mapping[str, Any]]:
    return {host: each for host, each in around.fleet.items() if queue in each["queues"]}


def _start_worker(queue: str) -> tuple[str, ...]:
    return (f"celery -A multiagents worker -Q {queue or 'llm,io'}",)
