"""What becomes of an attempt whose message Celery throws away?

Celery drops a message that was revoked, that has expired, or whose task its worker does not have,
and calls no errback for it.  Here signals tell of it, in the worker's main process.  A command
for a function that its worker lacks never gets here: it is given back (`strangers`).

- Revoked: somebody said that it shall not run.  The attempt fails and is not tried again; its
  outcome is unknown if it was ended while it ran.
- Expired, or a plain task unknown to its worker: a plain task's attempt fails clean and is tried
  again as the step's policy says.  A command to a worker function stands in its outbox still: a
  sweep sends it again.

A command that was sent again has several messages of one id, so one that never ran here says
nothing of an attempt that is claimed: another worker may be running it by another message.

Nothing is decided here (E20); a report that cannot be stored is made up for by the time-out of a
plain task, and by the next message of a command, which is revoked as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from celery import Celery, signals

from multiagents.core.entries import Failure
from multiagents.core.marks import Mark, read_mark
from multiagents.core.ports import Verdict
from multiagents.core.states import Outcome
from multiagents.engine.attempts import StoreEngine
from multiagents.storage.client import StoreError

log = structlog.get_logger(__name__)


def listen(app: Celery, engine: Callable[[], StoreEngine]) -> None:
    """Report what this app's workers throw away; ``engine`` is one that gives up soon."""

    def on_revoked(sender: Any, request: Any, terminated: bool, expired: bool, **_: Any) -> None:
        mark = read_mark(request)
        if sender.app is not app or not mark:
            return
        verdict = _expired(request.id) if expired else _revoked(request.id, ran=terminated)
        _report(engine(), mark, request.id, verdict)

    def on_unknown(sender: Any, message: Any, name: str, id: str, **_: Any) -> None:  # noqa: A002
        mark = read_mark(message.headers)
        if sender.app is app and mark:
            _report(engine(), mark, id, _unknown(name, sender.hostname))

    signals.task_revoked.connect(on_revoked, weak=False)
    signals.task_unknown.connect(on_unknown, weak=False)


def _revoked(task_id: str, *, ran: bool) -> Verdict:
    when = "while it ran" if ran else "before it began"
    failure = Failure("TaskRevoked", f"its Celery task {task_id} was revoked {when}")
    return Verdict(failure, Outcome.UNKNOWN if ran else Outcome.CLEAN, retryable=False)


def _expired(task_id: str) -> Verdict:
    message = f"its Celery task {task_id} expired in its queue; no worker was free in time"
    return Verdict(Failure("TaskExpired", message), Outcome.CLEAN)


def _unknown(name: str, hostname: str) -> Verdict:
    message = (
        f"worker {hostname} has no task {name!r}: import its module there, or send the step to a"
        " queue whose workers have it"
    )
    return Verdict(Failure("UnknownTask", message), Outcome.CLEAN)


def _report(engine: StoreEngine, mark: Mark, task_id: str, verdict: Verdict) -> None:
    """Fail what the message holds, or what it stands for if that is not to be done any more."""
    never_ran = mark.timeout_s is None and verdict.outcome is Outcome.CLEAN
    try:
        held = not never_ran and engine.fail_delivery(mark.saga_id, task_id, verdict, decide=False)
        if not held and not verdict.retryable and _claim(engine, mark, task_id):
            engine.fail_delivery(mark.saga_id, task_id, verdict, decide=False)
    except StoreError as error:
        log.warning("a discarded task is not reported", task=task_id, error=type(error).__name__)


def _claim(engine: StoreEngine, mark: Mark, task_id: str) -> bool:
    """Take a command that nobody has taken, so that nobody does it; False if it is not to be."""
    held = engine.claim(
        mark.saga_id,
        mark.ref,
        delivery=task_id,
        queue="",
        version=mark.version,
    )
    return held is not None
