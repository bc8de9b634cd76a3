"""How does an attempt end whose message Celery discards?

Celery discards a message that was revoked or has expired, or whose task its worker lacks.  It calls
no errback for that, but sends a signal in the worker's main process.  A command for a function that
its worker lacks does not get here: the worker gives it back (`unknown_tasks`).

- Revoked: the attempt fails and is not retried.  If it was ended while it ran, its outcome is
  unknown.
- Expired, or a plain task that its worker lacks: a plain task's attempt fails clean and is retried
  by the step's policy.  A command to a worker function is still in its outbox, and a sweep sends it
  again.

A command that was sent again has several messages with one id.  So a message that never ran here
proves nothing about a claimed attempt: another worker may run it by another message.

Nothing is decided here (E20).  If a report cannot be stored, a plain task's timeout decides; the
next message of a command is revoked as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from celery import Celery, signals

from multiagents.core.entries import Failure
from multiagents.core.marks import Mark, read_mark
from multiagents.core.ports import Verdict
from multiagents.core.states import FailureEffect
from multiagents.engine.attempts import StoreEngine
from multiagents.storage.client import StoreError

log = structlog.get_logger(__name__)


def listen(app: Celery, engine: Callable[[], StoreEngine]) -> None:
    """Report messages that this app's workers discard; ``engine`` is one that gives up soon."""

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
    return Verdict(failure, FailureEffect.UNKNOWN if ran else FailureEffect.CLEAN, retryable=False)


def _expired(task_id: str) -> Verdict:
    message = f"its Celery task {task_id} expired in its queue; no worker was free in time"
    return Verdict(Failure("TaskExpired", message), FailureEffect.CLEAN)


def _unknown(name: str, hostname: str) -> Verdict:
    message = (
        f"worker {hostname} has no task {name!r}: import its module there, or send the step to a"
        " queue whose workers have it"
    )
    return Verdict(Failure("UnknownTask", message), FailureEffect.CLEAN)


def _report(engine: StoreEngine, mark: Mark, task_id: str, verdict: Verdict) -> None:
    """Fail the attempt that the message holds; if none, and it is revoked, the one it names."""
    never_ran = mark.timeout_s is None and verdict.effect is FailureEffect.CLEAN
    try:
        held = not never_ran and engine.fail_delivery(mark.saga_id, task_id, verdict, decide=False)
        if not held and not verdict.retryable and _claim(engine, mark, task_id):
            engine.fail_delivery(mark.saga_id, task_id, verdict, decide=False)
    except StoreError as error:
        log.warning("a discarded task is not reported", task=task_id, error=type(error).__name__)


def _claim(engine: StoreEngine, mark: Mark, task_id: str) -> bool:
    """Claim an unclaimed command, so that no worker runs it; False if it cannot be claimed."""
    held = engine.claim(
        mark.saga_id,
        mark.ref,
        delivery=task_id,
        queue="",
        version=mark.version,
    )
    return held is not None
