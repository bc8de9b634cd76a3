"""How does an exception in a task become a decision over its saga?

1. The function raises inside Celery's tracer, and the tracer calls the errback
   `multiagents.compensate` (`saga_tasks`) in the same thread.
2. `Failures.report` looks for the attempt in this thread's slot (`step_task`), then among the plain
   tasks that this thread has fenced.  A worker's main process finds it by the delivery alone.
3. `Engine.fail` logs the failure and decides over it in one trip.  A slot may continue with the
   attempt that the commit has claimed, such as the first undo.

Rules: a slot keeps its report until the store takes it.  A worker's main process waits for nothing
(E20): it only logs the failure, and a sweep decides.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import structlog
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import Celery

from multiagents.core.entries import Failure
from multiagents.core.exceptions import LoopBlocked, StepTimeout
from multiagents.core.ports import Assignment, Verdict
from multiagents.core.states import FailureEffect, Kind
from multiagents.engine.attempts import StoreEngine
from multiagents.hosting import fence
from multiagents.hosting.plain_reports import GIVEN_UP, PlainEnds
from multiagents.hosting.step_task import TaskProcess, WorkerTask, may_go_on, slot
from multiagents.worker_sdk.activity import Ending
from multiagents.worker_sdk.attempt import verdict_of

log = structlog.get_logger(__name__)

LOST = (WorkerLostError, TimeLimitExceeded)
"""Errors that a worker's main process reports for a child, with one write only (E20)."""


class Failures:
    """Reports the failures of an app's tasks.

    ``main_engine``: an engine that gives up soon, for a worker's main process.
    ``persist``: `report_retry.persist` for this process.
    """

    def __init__(
        self,
        app: Celery,
        *,
        process_of: Callable[[], TaskProcess],
        plain_ends: PlainEnds,
        main_engine: Callable[[], StoreEngine],
        persist: Callable[..., Any],
    ) -> None:
        self._app = app
        self._process_of = process_of
        self._plain_ends = plain_ends
        self._main_engine = main_engine
        self._persist = persist

    def report(self, saga_id: str, delivery: str, error: BaseException | None, task: str) -> None:
        """Report the failure of a delivery's attempt; the errback calls this.

        ``error`` None: it came by message, without the error.  ``task``: its name, "" if unknown.
        """
        if error is None:  # by a message, in a slot
            verdict = Verdict(Failure("TaskFailed", "failed elsewhere"))
            self._persist(lambda: self._note(saga_id, delivery, verdict), given_up=GIVEN_UP)
        elif isinstance(error, LOST):
            self._note(saga_id, delivery, verdict_of(error, Kind.RUN))
        elif self._report_step(error):
            return
        elif isinstance(self._app.tasks.get(task), WorkerTask):
            # The attempt of this id belongs to another message with the same id: this one's claim
            # failed, or its report was given up.  The command or the lease decides.
            why = f"{type(error).__name__}: {error}"
            log.warning("a message without an attempt is given up", saga=saga_id, error=why)
        elif (held := fence.held_by(delivery)) is not None:  # by the slot that ran it
            self._plain_ends.failed(saga_id, delivery, error, held)
        else:
            self._note(saga_id, delivery, verdict_of(error, Kind.RUN))

    def _report_step(self, error: BaseException) -> bool:
        """Report the failure of this thread's attempt; False if the thread has none."""
        held = slot.held
        if held is None:
            return False
        process = self._process_of()
        slot.held = slot.result = None
        # A second time, since a time limit's signal may have interrupted the first call.
        process.leases.ended(held)
        verdict = process.verdict_of(error, held.kind)
        left = process.left_by(held.nonce)
        overran = left is not None and isinstance(error, StepTimeout)
        stuck = overran or isinstance(error, LoopBlocked)
        ends_here = stuck and process.can_be_ended
        if left is not None:
            verdict = replace(verdict, effect=FailureEffect.UNKNOWN, running=not ends_here)

        def report() -> Assignment | None:
            process.leases.flush(held)
            go_on = may_go_on(process, held) and not ends_here
            return process.engine.fail(held, verdict, go_on=go_on)

        try:
            slot.following = process.persist(report)
        finally:
            process.leases.release(held)
            if left is not None and not ends_here:
                left.leave(partial(report_ending, process, held))
        if ends_here:
            why = f"{type(error).__name__}: {error}"
            log.warning("a process is ended, another takes its place", why=why, **_about(held))
            os.kill(os.getpid(), signal.SIGKILL)
        return True

    def _note(self, saga_id: str, delivery: str, verdict: Verdict) -> None:
        """Log it in one short try, perhaps in a worker's main process; a sweep decides."""
        self._main_engine().fail_delivery(saga_id, delivery, verdict, decide=False)


def report_ending(process: TaskProcess, held: Assignment, ending: Ending) -> None:
    """Report the late end of a call of a given-up attempt (E6); runs in the call's thread."""
    log.warning("a given-up step has ended late", what=ending.label, **_about(held))

    def report() -> None:
        result, verdict = _late_outcome(process, held, ending)
        if result is not None:
            process.engine.succeed(held, result, go_on=False)
        elif verdict is not None:
            process.engine.fail(held, verdict, go_on=False)

    process.persist(report)


def _late_outcome(
    process: TaskProcess, held: Assignment, ending: Ending
) -> tuple[str | None, Verdict | None]:
    if ending.finish is None:
        what = f"{ending.label}, which attempt {held.attempt} had left in a thread, has ended"
        late = Failure("LateEffect", what)
        return None, Verdict(late, running=ending.more, part=ending.part)
    try:
        return ending.finish(), None
    except BaseException as error:  # noqa: BLE001 - any error is its outcome
        return None, replace(process.verdict_of(error, held.kind), part=ending.part)


def _about(held: Assignment) -> dict[str, Any]:
    """The fields of an attempt's log line."""
    return {"saga": held.saga_id, "step": held.step, "attempt": held.attempt}
