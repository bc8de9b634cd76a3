"""What is under way in a saga, or held up, and by what?

A sentence for each step or undo that is running, sent, held back, waiting for its next attempt,
or parked.  Pure.
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
from multiagents.orchestrator.outbox import parse_outbox_value, target_of
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
    backlogs: Mapping[str, Backlog] = field(default_factory=dict)
    """By queue; one that is not there could not be looked into."""
    queue_of: Mapping[str, str] = field(default_factory=dict)
    """By outbox field."""
    progress: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By step."""


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
            case StepState.RUNNING.value:
                yield _running(now, around, task)
            case StepState.DISPATCHED.value:
                yield _dispatched(now, around, task)
            case StepState.RETRYING.value:
                yield _retrying(now, task)
            case _:
                yield _parked(now, task)
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


def _reason(now: Situation, task: Task, code: str, text: str, **more: Any) -> Reason:
    work = now.saga.steps[task.step].of(task.kind)
    facts = {"attempt": work.attempt, **more.pop("facts", {})}
    text = text[0].upper() + text[1:]
    return Reason(code, text, step=task.step, kind=task.called, facts=facts, **more)


# ---- running ----


def _running(now: Situation, around: Surroundings, task: Task) -> Reason:
    work = now.saga.steps[task.step].of(task.kind)
    target = target_of(now.workflow.by_name[task.step], task.kind)
    where = f"on {work.worker}" if work.worker else "in a worker"
    if isinstance(target, TaskCall):
        where = f"as the Celery task {target.task!r}"
    since = span(max(0, now.now_ms - work.started_at))
    lease_ms = now.due.get(k.due_lease(now.saga.id, task.kind, task.step, work.attempt, work.nonce))
    text = f"{task.name} (attempt {work.attempt}) has been running {where} for {since}"
    text += (
        f"{_progress(around, task)}{_silent(around, work.worker)}; {_lease(now, lease_ms, target)}"
    )
    facts = {"worker": work.worker or None, "started_at": iso(work.started_at)}
    at = iso(lease_ms) if lease_ms else None
    return _reason(now, task, "running", text, at=at, facts=facts)


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


def _lease(now: Situation, lease_ms: int | None, target: object) -> str:
    if lease_ms is None:
        return "it has just reported."
    if isinstance(target, TaskCall):
        return f"its time-out, at {now.when(lease_ms)}, decides if it does not report."
    if lease_ms > now.now_ms:
        return (
            f"its lease lasts until {now.when(lease_ms)} and is renewed while its worker lives;"
            " should it run out, the attempt counts as lost."
        )
    who = "a worker's sweep takes it for lost" if now.workers else "no worker runs to notice it"
    return f"its lease ran out at {now.when(lease_ms)}: {who}."


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


def _parked(now: Situation, task: Task) -> Reason:
    work = now.saga.steps[task.step].of(task.kind)
    since = now.when(parked_at(now.saga, task.step, task.kind))
    attempts = f"{work.attempt} attempt{'' if work.attempt == 1 else 's'}"
    text = f"{task.name} is parked since {since}, after {attempts}: {_error(now, task)}."
    text += (
        " Only a person moves it on: try it again, skip it, or resolve it after doing it by hand."
    )
    what = f"{now.saga.id} {task.step}"
    commands = (
        f"multiagents retry {what}",
        f'multiagents dead-letters skip {what} --reason "..."',
        f'multiagents dead-letters resolve {what} --reason "..."',
    )
    return _reason(now, task, "parked", text, commands=commands)


def _error(now: Situation, task: Task) -> str:
    error = now.saga.steps[task.step].of(task.kind).error
    return f"{error.type}: {error.message}" if error else "not known"


# ---- sent, or not yet ----


def _dispatched(now: Situation, around: Surroundings, task: Task) -> Reason:
    work = now.saga.steps[task.step].of(task.kind)
    name = k.outbox_field(task.kind, task.step, work.attempt)
    value = around.work.get(name)
    target = target_of(now.workflow.by_name[task.step], task.kind)
    queue = around.queue_of.get(name, "")
    again_ms = now.due.get(k.due_outbox(now.saga.id, name))
    code, why = "claimed", "a worker has just begun it."
    if value is not None:
        sent_ms, sends = parse_outbox_value(value)
        if sends:
            code, why = _not_claimed(around, queue, worker_name(target))
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


def _not_claimed(around: Surroundings, queue: str, function: str) -> tuple[str, str]:
    """Why a message that was sent is not claimed."""
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
    backlog = around.backlogs.get(queue)
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
