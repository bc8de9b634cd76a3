"""Why has no worker claimed a step?

Its message is not sent yet, or withheld; no worker runs, or none of its queue has the function; or
it waits behind other messages.  Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multiagents.core.clock import iso
from multiagents.core.names import QUEUE_IO
from multiagents.core.states import Kind
from multiagents.engine.launches import (
    MEND,
    OWN_APP,
    advice,
    is_running,
    launch_for,
    unknown_app,
)
from multiagents.engine.messages import parse_outbox_value
from multiagents.engine.queue_heads import Backlog
from multiagents.operations.explain.saga import Reason, Situation, span
from multiagents.operations.explain.surroundings import (
    Surroundings,
    Task,
    able,
    all_busy,
    consumers_of,
    field_of,
    hosts,
    reason_of,
)
from multiagents.storage import keys as k
from multiagents.workflows.step import worker_name

STRANDED = ("no_worker", "no_consumer", "unknown_function", "function_elsewhere")
"""Codes of reasons that only another worker can remove."""
WITH_COMMAND = ("unreported", "running", "retrying")
"""Codes of reasons that another worker can remove if they come with a command that starts one."""


def dispatched(now: Situation, around: Surroundings, task: Task) -> Reason:
    """The reason of a step or undo that is in the outbox or has just been claimed."""
    work = now.saga.steps[task.step].of(task.kind)
    name = field_of(now, task)
    value = around.work.get(name)
    target = now.workflow.by_name[task.step].target(task.kind)
    queue = around.queue_of.get(name, "")
    again_ms = now.due.get(k.due_outbox(now.saga.id, name))
    code, why, function = "claimed", "a worker has just begun it.", worker_name(target)
    if value is not None:
        sent_ms, sends = parse_outbox_value(value)
        if sends:
            code, why = _not_claimed(around, name, function)
            times = "" if sends == 1 else f", {sends} times so far"
            ago = f" {span(now.now_ms - sent_ms)} ago" if sent_ms else ""
            sent = f"its message was sent to queue {queue!r}{ago}{times}"
            back = "and no worker has claimed it" if sent_ms else "and given back by a worker"
            why = f"{sent}, {back}: {why}"
        else:
            code, why = _not_sent(now, around, queue, sent_ms)
        why += _strangers(around, queue, function)
    if again_ms and code not in ("claimed", "held_back"):
        verb = "is" if again_ms > now.now_ms else "was to be"
        why += f" It {verb} looked at again at {now.when(again_ms)}."
    lacking = [host for host in consumers_of(around, queue) if host not in able(around, function)]
    facts = {"queue": queue or None, "worker_function": function, "without_function": lacking}
    text = f"{task.name} (attempt {work.attempt}): {why}"
    at = iso(again_ms) if again_ms else None
    own = now.workflow.by_name[task.step].queue if task.kind is Kind.RUN else None
    # The default queue is a guess, if neither the definition nor a running worker names it.
    known = own or queue != QUEUE_IO or able(around, function)
    place = queue if known else ""
    alike = code == "unknown_function" and _runs_without(around, function)
    helps = code in STRANDED and not alike
    commands = (start_worker(around, place, function),) if helps else ()
    return reason_of(now, task, code, text, at=at, commands=commands, facts=facts)


def is_stranded(reason: Mapping[str, Any]) -> bool:
    """Whether a reason, as JSON shows it, says that only another worker helps."""
    by_command = reason["code"] in WITH_COMMAND and reason["commands"]
    return reason["code"] in STRANDED or bool(by_command)


def stranded(reason: Mapping[str, Any]) -> str:
    """Such a reason in few words, with the remedy."""
    commands = reason["commands"]
    fix = f"start one with `{commands[0]}`" if commands else MEND
    return f"nothing moves it, because {why_stranded(reason)}: {fix}"


def why_stranded(reason: Mapping[str, Any]) -> str:
    """Such a reason as a clause."""
    queue, function = reason.get("queue"), reason.get("worker_function")
    match reason["code"]:
        case "unreported" if reason["waiting"]:
            return f"no worker that hosts sagas consumes queue {queue!r}, where its message waits"
        case "unreported":
            return "no worker that hosts sagas is running"
        case "no_worker" | "running" | "retrying":
            return "no worker runs"
        case "no_consumer":
            return f"no worker consumes queue {queue!r}"
        case "unknown_function":
            return f"no running worker has the function {function!r}"
        case _:
            return f"no worker that consumes queue {queue!r} has the function {function!r}"


def _not_sent(now: Situation, around: Surroundings, queue: str, held_ms: int) -> tuple[str, str]:
    if not held_ms:
        return "not_sent", "its message has perhaps not been sent yet."
    slots = sum(each.get("slots", 1) for each in consumers_of(around, queue).values())
    taken = f"the {slots} slots" if slots else "all slots"
    return "held_back", (
        f"it has been waiting since {now.when(held_ms)} for one of {taken} of queue {queue!r}; the"
        " process that ends another branch goes on with it."
    )


def _not_claimed(around: Surroundings, name: str, function: str) -> tuple[str, str]:
    """Why no worker has claimed the published message of an outbox field."""
    queue = around.queue_of.get(name, "")
    consumers = consumers_of(around, queue)
    if not around.fleet:
        return "no_worker", _no_worker(around)
    if not consumers:
        running = ", ".join(
            f"{host} ({', '.join(each['queues'])})" for host, each in around.fleet.items()
        )
        return "no_consumer", f"no worker consumes that queue; running: {running}."
    capable = able(around, function)
    if not capable:
        why = (
            f"no running worker has the function {function!r}; after some more sends it is parked."
        )
        if _runs_without(around, function):
            why += f" Workers of the same code run without it: {MEND}."
        return "unknown_function", why
    if not consumers.keys() & capable.keys():
        places = sorted({queue for each in capable.values() for queue in each["queues"]})
        return "function_elsewhere", (
            f"no worker of that queue has the function {function!r}; {hosts(capable)} has it, and"
            f" consumes {', '.join(places)}."
        )
    backlog = around.backlogs.get(name)
    if backlog is None or backlog.length is None:
        return "sent", "the broker's queues cannot be read from here."
    if backlog.length:
        slots = sum(each.get("slots", 1) for each in consumers.values())
        count = "1 message waits" if backlog.length == 1 else f"{backlog.length} messages wait"
        return "queued", f"{count} there, for {slots} slots of {', '.join(consumers)}."
    return "sent", _fetched({host: consumers[host] for host in consumers.keys() & capable.keys()})


def _fetched(crew: Mapping[str, Mapping[str, Any]]) -> str:
    """Where a message may be that is not in its queue.  ``crew``: workers with the function."""
    if busy := all_busy(crew):
        return (
            f"{busy}, as reported in the last seconds; a worker fetches messages before it has a"
            " slot for them, and this one waits there."
        )
    who = hosts(sorted(crew))
    return f"the queue is empty, so {who} holds the message, or it is lost; then it is sent again."


def _runs_without(around: Surroundings, function: str) -> bool:
    """Whether a worker like those that run would lack a function that none of them has."""
    return is_running(launch_for(around.launches, [function], around.imports), around.fleet)


def _no_worker(around: Surroundings) -> str:
    if not around.stopping:
        return "no worker is running."
    verb = "is" if len(around.stopping) == 1 else "are"
    return f"no worker claims work: {hosts(around.stopping)} {verb} stopping."


def _strangers(around: Surroundings, queue: str, function: str) -> str:
    """The workers of its queue that lack the function and give the message back."""
    capable = able(around, function)
    lacking = [host for host in consumers_of(around, queue) if host not in capable]
    if not lacking:
        return ""
    verb = "consumes" if len(lacking) == 1 else "consume"
    return (
        f" {hosts(lacking)} {verb} queue {queue!r} without the function {function!r}, and give"
        f"{'s' if len(lacking) == 1 else ''} its steps back."
    )


def start_for_plain(
    around: Surroundings, queue: str, backlog: Backlog, task: str
) -> tuple[str, ...]:
    """The command that starts a worker for a plain task's queue, if no worker seems to consume it.

    It seems so if no worker hosts sagas, or if messages wait and no hosting worker consumes the
    queue.  A worker of the task's app without `attach` is invisible here.  A launch whose app has
    the task is known to be the right one.
    """
    if around.fleet and (consumers_of(around, queue) or not backlog.length):
        return ()
    able = [each for each in around.launches if task in (each.tasks or ())]
    theirs = able or [each for each in around.launches if each.app != OWN_APP]
    places = [queue] if queue else []
    if not theirs and not any(place in each.queues for each in around.launches for place in places):
        return (unknown_app().command(places),)
    known = theirs or around.launches
    return (advice(known, queues=places, imports=around.imports, alone=not around.fleet),)


def start_worker(around: Surroundings, queue: str, function: str) -> str:
    """The command that starts a worker with a function; ``queue`` empty: for its own queue."""
    return advice(
        around.launches,
        queues=[queue] if queue else (),
        functions=[function],
        imports=around.imports,
        alone=not around.fleet,
    )
