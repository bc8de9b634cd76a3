"""What is under way in a saga, or held up, and why?

Each step or undo that is running, sent, withheld, retrying or parked gets a sentence.  The engine
claims a user's own Celery task when it sends it (E13), so its state is "running" from then on; the
sentence says only what is known.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from multiagents.core.clock import iso
from multiagents.core.exceptions import told_of_error
from multiagents.core.fields import claim_field, outbox_field
from multiagents.core.policies import DEFAULT_RETRY, UNDO_RETRY
from multiagents.core.states import Kind, StepState
from multiagents.core.texts import sentence
from multiagents.engine.plain_tasks import NOT_SENT
from multiagents.engine.queue_heads import Backlog
from multiagents.engine.resender import UNKNOWN_WORKER
from multiagents.operations.explain.blocked_loops import told_of_loop
from multiagents.operations.explain.saga import Reason, Situation, span
from multiagents.operations.explain.surroundings import (
    BUSY,
    Surroundings,
    Task,
    able,
    all_busy,
    consumers_of,
    field_of,
    hosts,
    plain_task,
    reason_of,
    ref_of,
    shown,
)
from multiagents.operations.explain.unclaimed_steps import dispatched, start_for_plain, start_worker
from multiagents.saga.commands import retry_timer
from multiagents.saga.dead_letters import parked_at
from multiagents.storage import keys as k
from multiagents.workflows.step import worker_name


def kept_definition(workflow: str) -> str:
    """Why a retry repeats the failure although the definition was corrected."""
    return (
        f"This saga keeps the definition of {workflow!r} with which it began, which has changed"
        " since. A retry uses the old one, so resolve or skip a step that the change was to fix."
    )


NO_WORKER = "No worker that hosts sagas is running, so nothing moves it."


def underway(now: Situation, around: Surroundings, tasks: Sequence[Task]) -> Iterator[Reason]:
    """A reason for each task that is shown, and for each state the number of the others."""
    told = shown(tasks)
    for task in told:
        match task.state:
            case StepState.RUNNING.value if plain_task(now, task):
                yield _again(now, around, task, _unreported(now, around, task))
            case StepState.RUNNING.value:
                yield _again(now, around, task, _running(now, around, task))
            case StepState.DISPATCHED.value:
                yield _again(now, around, task, dispatched(now, around, task))
            case StepState.RETRYING.value:
                yield _retrying(now, around, task)
            case _:
                yield _parked(now, around, task)
    for state in BUSY:
        left = sum(task.state == state for task in tasks) - sum(t.state == state for t in told)
        if left:
            yield Reason("more", f"{left} more are {state}.", facts={"state": state, "count": left})


def members_of(now: Situation, tasks: Sequence[Task]) -> list[str]:
    """The due members whose times the sentences need."""
    found = []
    for task in tasks:
        work = now.saga.steps[task.step].of(task.kind)
        ref = ref_of(now, task)
        if task.state == StepState.RUNNING.value:
            found.append(k.due_lease(now.saga.id, ref, work.nonce))
        elif task.state == StepState.DISPATCHED.value:
            found.append(k.due_outbox(now.saga.id, outbox_field(ref)))
        elif task.state == StepState.RETRYING.value:
            found.append(k.due_timer(now.saga.id, retry_timer(ref)))
    return found


def _again(now: Situation, around: Surroundings, task: Task, reason: Reason) -> Reason:
    """The reason with the end of the attempt before."""
    before = around.earlier.get((task.kind, task.step))
    if before is None:
        return reason
    text = f"{reason.text} {before.told(now.when(before.at_ms))}"
    return replace(reason, text=text, facts={**reason.facts, "earlier": before.to_dict()})


# ---- running ----


def _running(now: Situation, around: Surroundings, task: Task) -> Reason:
    work = now.saga.steps[task.step].of(task.kind)
    where = f"on {work.worker}" if work.worker else "in a worker"
    since = span(max(0, now.now_ms - work.started_at))
    lease_ms = _lease_end(now, task)
    over = lease_ms is not None and lease_ms <= now.now_ms
    gone = over and not now.workers and work.worker not in around.stopping
    was = f"began {where} {since} ago" if gone else f"has been running {where} for {since}"
    text = f"{task.name} (attempt {work.attempt}) {was}"
    text += f"{_progress(around, task)}{_silent(around, work.worker)};"
    text += f" {_lease(now, around, work.worker, lease_ms)}"
    blocked = next((one for one in around.loops if work.nonce in one["held"]), None)
    facts: dict[str, Any] = {"worker": work.worker or None, "started_at": iso(work.started_at)}
    if blocked is not None:
        text += " " + told_of_loop(blocked, work.nonce, now.now_ms)
        facts["loop_blocked_by"] = {**blocked["by"], "place": blocked["place"]}
    at = iso(lease_ms) if lease_ms else None
    commands = _start(now, around, task) if over else ()
    return reason_of(now, task, "running", text, at=at, commands=commands, facts=facts)


def _start(now: Situation, around: Surroundings, task: Task) -> tuple[str, ...]:
    """The command that starts a worker for it, if none runs."""
    if now.workers:
        return ()
    spec, call = now.workflow.by_name[task.step], plain_task(now, task)
    queue = (spec.queue if task.kind is Kind.RUN else None) or ""
    if call is not None:
        routed = around.queue_of.get(field_of(now, task), "")
        return start_for_plain(around, routed or queue, Backlog(None), call.task)
    return (start_worker(around, queue, worker_name(spec.target(task.kind))),)


def _lease_end(now: Situation, task: Task) -> int | None:
    """The end of its lease, or of a plain task's timeout; None: it has reported."""
    work = now.saga.steps[task.step].of(task.kind)
    return now.due.get(k.due_lease(now.saga.id, ref_of(now, task), work.nonce))


def _progress(around: Surroundings, task: Task) -> str:
    told = around.progress.get(task.step) if task.kind is Kind.RUN else None
    if not told:
        return ""
    share = told.get("progress")
    parts = [f"{share:.0%}" if share is not None else "", told.get("note") or ""]
    return f", at {', '.join(part for part in parts if part)}"


def _silent(around: Surroundings, worker: str) -> str:
    if worker in around.stopping:
        return " (that worker is stopping, and ends its tasks first)"
    gone = worker and around.fleet and worker not in around.fleet
    return ", which is not among the running workers" if gone else ""


def _lease(now: Situation, around: Surroundings, worker: str, lease_ms: int | None) -> str:
    if lease_ms is None:
        return "it has just reported."
    when = now.when(lease_ms)
    if lease_ms <= now.now_ms:
        return _over(now, when)
    if worker and worker not in around.fleet and worker not in around.stopping:
        then = "then a worker counts it as lost" if now.workers else "no worker runs to notice that"
        again = ", one more term, because no worker swept for a while" if now.one_more_term else ""
        return f"its lease lasts until {when}{again}; {then}."
    return (
        f"its lease lasts until {when} and is renewed while its worker lives;"
        " if it runs out, the attempt counts as lost."
    )


def _over(now: Situation, when: str) -> str:
    """The clause about a lease that has run out."""
    again = (
        ", after one more term, because no worker swept for a while" if now.one_more_term else ""
    )
    if now.workers:
        return f"its lease ran out at {when}: a worker counts it as lost{again}."
    return (
        f"its lease ran out at {when}, and no worker runs. The first one that starts counts the"
        f" attempt as lost{again}; then the saga continues."
    )


def _who_notices(now: Situation) -> str:
    return "a worker will count it as lost" if now.workers else "no worker runs to notice it"


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
        code, known = "not_sent", "Its message has perhaps not been sent, and is not sent again."
    text = (
        f"{task.name} (attempt {work.attempt}) is the Celery task {call and call.task!r}. {known}"
    )
    if end_ms:
        over = f"If it does not report, its timeout decides, at {now.when(end_ms)}"
        if end_ms <= now.now_ms:
            over = f"Its timeout was over at {now.when(end_ms)}: {_who_notices(now)}"
        text += f" {over}."
    facts = {
        "worker_function": call and call.task,
        "queue": queue or None,
        "sent_at": iso(work.started_at) if code == "unreported" else None,
        "waiting": backlog.length,
        "consumers": list(consumers_of(around, queue)),
    }
    commands: tuple[str, ...] = ()
    if end_ms is not None and code == "unreported":
        commands = start_for_plain(around, queue, backlog, call.task if call else "")
    at = iso(end_ms) if end_ms else None
    return reason_of(now, task, code, text, at=at, commands=commands, facts=facts)


def _is_unsent(around: Surroundings, task: Task, nonce: str) -> bool:
    """Whether the process that claimed it has not recorded that it sends it."""
    claim = around.work.get(claim_field(task.kind, task.step), "")
    return claim.split("|")[1:2] == [nonce] and claim.split("|", 3)[3].startswith(NOT_SENT)


def _known_of(
    now: Situation, around: Surroundings, task: Task, queue: str, backlog: Backlog
) -> str:
    """The facts about a published plain task, which reports nothing before its end."""
    ago = span(max(0, now.now_ms - now.saga.steps[task.step].of(task.kind).started_at))
    if not queue:
        return (
            f"It was sent {ago} ago, to the queue that the routes of its app give it, and has not"
            f" reported; whether it has begun is unknown.{_unhosted(around)}"
        )
    sent = f"It was sent {ago} ago to queue {queue!r} and has not reported; whether it has begun is"
    match backlog.length:
        case None:
            waits = "the broker's queues cannot be read from here"
        case 0 if busy := all_busy(consumers_of(around, queue)):
            waits = f"{busy}, so it is at work, or a worker has fetched it before it has a slot"
        case 0:
            waits = (
                "the queue is empty, so the message is lost, or a worker has it, perhaps already"
                " running it"
            )
        case 1:
            waits = "1 message waits there, perhaps its own"
        case count:
            waits = f"{count} messages wait there, perhaps its own among them"
    return f"{sent} unknown: {waits}. {_consumed(around, queue)}."


def _consumed(around: Surroundings, queue: str) -> str:
    """The known consumers of a queue; a worker without `attach` is invisible here."""
    consumers = consumers_of(around, queue)
    if consumers:
        slots = sum(each.get("slots", 1) for each in consumers.values())
        return f"That queue is consumed by {', '.join(consumers)}, with {slots} slots"
    if not around.fleet:
        return NO_WORKER.removesuffix(".")
    return (
        "No running worker that hosts sagas consumes that queue; whether another worker of its app"
        " does is unknown here"
    )


def _unhosted(around: Surroundings) -> str:
    return "" if around.fleet else f" {NO_WORKER}"


# ---- retrying, parked ----


def _retrying(now: Situation, around: Surroundings, task: Task) -> Reason:
    run, spec = now.saga.steps[task.step], now.workflow.by_name[task.step]
    work = run.of(task.kind)
    own = spec.retry if task.kind is Kind.RUN else spec.compensation_retry
    default = DEFAULT_RETRY if task.kind is Kind.RUN else UNDO_RETRY
    most = work.most or (own or work.retry or default).max_attempts
    timer = k.due_timer(now.saga.id, retry_timer(ref_of(now, task)))
    at_ms = now.due.get(timer) or work.retry_at
    text = f"{task.name} waits for try {work.tries + 1} of {most}"
    text += f", at {now.when(at_ms)}" if at_ms else ", which is due"
    text += f"; last error: {sentence(_error(now, task))}"
    if not now.workers:
        text += " No worker runs to begin it."
    facts = {"tries": work.tries, "max_attempts": most}
    at, commands = iso(at_ms) if at_ms else None, _start(now, around, task)
    return reason_of(now, task, "retrying", text, at=at, commands=commands, facts=facts)


def _parked(now: Situation, around: Surroundings, task: Task) -> Reason:
    late = around.late.get((task.kind, task.step), [])
    work = now.saga.steps[task.step].of(task.kind)
    since = now.when(parked_at(now.saga, task.step, task.kind))
    attempts = f"{work.attempt} attempt{'' if work.attempt == 1 else 's'}"
    text = f"{task.name} is parked since {since}, after {attempts}: {sentence(_error(now, task))}"
    for each in (one for one in late if not one.left):
        when = now.when(each.at_ms)
        text += f" Attempt {each.attempt} reported success at {when}, after it was given up: its"
        text += " effect has probably happened."
    for each in (one for one in late if one.left):
        text += f" Late, at {now.when(each.at_ms)}: {each.left}. Check its effects."
    text += _brought(now, around, task)
    text += f" {kept_definition(now.saga.workflow)}" if now.is_changed else ""
    text += (
        " Only an operator moves it on: retry it, skip it, or resolve it after doing it by hand."
    )
    what = f"{now.saga.id} {task.step}"
    commands = (
        f"multiagents retry {what}",
        f'multiagents dead-letters skip {what} --reason "..."',
        f'multiagents dead-letters resolve {what} --reason "..."',
    )
    facts: dict[str, Any] = {"late_successes": [each.to_dict() for each in late]}
    facts["definition_changed"] = now.is_changed
    return reason_of(now, task, "parked", text, commands=commands, facts=facts)


def _brought(now: Situation, around: Surroundings, task: Task) -> str:
    """The sentence that a worker now has the function whose absence parked it (rule 9)."""
    error = now.saga.steps[task.step].of(task.kind).error
    if error is None or error.type != UNKNOWN_WORKER:
        return ""
    function = worker_name(now.workflow.by_name[task.step].target(task.kind))
    capable = able(around, function)
    return f" {hosts(capable)} has that function now: retry it." if capable else ""


def _error(now: Situation, task: Task) -> str:
    error = now.saga.steps[task.step].of(task.kind).error
    return told_of_error(error.to_dict()) if error else "not known"
