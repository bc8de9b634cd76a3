"""How is the end of a plain task reported by the slot that ran it?

Celery's tracer calls the task's link, or its errback, in the thread that has just run it.  The
task's effect has happened and must not happen twice for nothing.  So that thread keeps the report
until the store takes it, like the report of a `@worker` step.

Rules: a success is never reported as a failure, whatever stops its report: a time limit's signal,
the store, the broker.  Celery's tracer takes all of these for a failure of the task.  A worker's
main process runs no task and must not wait (E20), so it calls nothing here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import structlog
from celery.exceptions import SoftTimeLimitExceeded

from multiagents.core.exceptions import InvalidResult
from multiagents.core.ports import Verdict
from multiagents.core.states import Kind
from multiagents.storage.client import StoreError
from multiagents.storage.sagas import Attempt
from multiagents.worker_sdk.attempt import verdict_of
from multiagents.worker_sdk.validation import to_json

log = structlog.get_logger(__name__)

GIVEN_UP = "a report is given up, the step's timeout decides"
"""A plain task has no lease."""

Held = list[Attempt] | None
"""The attempts that a plain task held at its start; None: not known."""
Report = Callable[[], Any]


class PlainEngine(Protocol):
    """The reports of a plain task's end."""

    def plain_ended(
        self, saga_id: str, task_id: str, result: str, *, attempts: Held = None
    ) -> None:
        """Report its result (JSON)."""

    def fail_delivery(
        self, saga_id: str, delivery: str, verdict: Verdict, *, decide: bool, attempts: Held = None
    ) -> bool:
        """Report its failure."""


class _Returned(threading.local):
    """The last plain task that returned in this thread."""

    delivery: str = ""
    held: Held = None
    """The very list object: it separates this run from others of the same delivery."""
    report: Report | None = None
    """The report that is not stored yet; None: it is stored, or given up."""


_returned = _Returned()


class PlainEnds:
    """Reports the ends of an app's plain tasks.

    ``persist``: `report_retry.persist` for this process.
    ``limit``: of a result, in bytes.
    """

    def __init__(self, engine: PlainEngine, persist: Callable[..., Any], limit: int) -> None:
        self._engine = engine
        self._persist = persist
        self._limit = limit

    def returned(self, saga_id: str, delivery: str, result: Any, held: Held) -> None:
        """Report a success.  Raises the store's error if the report is given up."""
        _returned.report = partial(self.report, saga_id, delivery, result, held)
        _returned.delivery, _returned.held = delivery, held
        self._send()

    def report(self, saga_id: str, delivery: str, result: Any, held: Held) -> None:
        """Report a success, once.  Raises the store's error."""
        kept = result if isinstance(result, dict) else {"value": result}
        try:
            text = to_json(kept, what="task result", limit=self._limit)
        except InvalidResult as error:
            self._failure(saga_id, delivery, error, held)()
            return
        self._engine.plain_ended(saga_id, delivery, text, attempts=held)

    def failed(self, saga_id: str, delivery: str, error: BaseException, held: Held) -> None:
        """Report a failure; for a task that had returned, its unreported success instead."""
        if _returned.delivery == delivery and _returned.held is held:
            why = f"{type(error).__name__}: {error}"
            log.warning("a plain task has succeeded, what came after failed", saga=saga_id, why=why)
            self._send()
            return
        self._keep(self._failure(saga_id, delivery, error, held))

    def _failure(self, saga_id: str, delivery: str, error: BaseException, held: Held) -> Report:
        verdict = verdict_of(error, Kind.RUN)
        return partial(
            self._engine.fail_delivery, saga_id, delivery, verdict, decide=True, attempts=held
        )

    def _send(self) -> None:
        report = _returned.report
        if report is None:
            return
        try:
            self._keep(report)
        except StoreError:
            _returned.report = None
            raise
        _returned.report = None

    def _keep(self, report: Report) -> None:
        try:
            self._persist(report, given_up=GIVEN_UP)
        except SoftTimeLimitExceeded:  # comes once for a task, and is meant for its function
            self._persist(report, given_up=GIVEN_UP)
