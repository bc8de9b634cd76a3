"""How is a saga's outcome delivered to its waiters?

Its result is stored, and its links or errbacks and the next task of its chain are sent.  Celery's
tracer does the same at the end of a task.  But here each target is handled alone: one that Celery
refuses to send is reported as refused, and the others follow.  If a server is away, no target
counts as refused, and a sweep delivers the rest.

For Celery 5.7.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import structlog
from celery import Celery
from celery.app.task import Context
from celery.canvas import maybe_signature
from celery.exceptions import NotRegistered
from celery.utils.functional import arity_greater
from kombu.exceptions import EncodeError

from multiagents.core.entries import Failure
from multiagents.core.exceptions import NoServer, SagaFailed
from multiagents.core.names import START_SAGA
from multiagents.core.states import SagaState
from multiagents.saga.outcome import SagaOutcome
from multiagents.saga.targets import (
    CHAIN,
    CHORD,
    ERRBACK,
    NOT_TOLD,
    Refusal,
    Target,
    Told,
    errbacks_of,
    targets_of,
)
from multiagents.storage.client import UNREACHABLE
from multiagents.storage.refusals import concerns_a_key
from multiagents.transport.publisher import Broker, is_away
from multiagents.transport.result_backend import HastyBackend

log = structlog.get_logger(__name__)

RESULT = "result"
_FAULTS = (NotImplementedError, TypeError, AttributeError, LookupError)
"""Errors of a backend that does not support chords, rather than of one that is away."""


class _Away(Exception):
    """A server did not answer; the cause is its error."""


class OutcomeDelivery:
    """Delivers outcomes through an app's broker and backend."""

    def __init__(self, app: Celery, broker: Broker, results: HastyBackend) -> None:
        self.app = app
        self._broker = broker
        self._results = results

    def __call__(self, effect: SagaOutcome) -> Told:
        """Deliver to all waiters, as far as that is possible now."""
        if self._results.rests():
            return NOT_TOLD
        if any(effect.waiting.values()) and not self._broker.answers():
            return NOT_TOLD  # Celery sends the rest of their canvas, and would wait long
        told = _Progress()
        try:
            for task_id, canvas in effect.waiting.items():
                self._deliver_one(effect, task_id, canvas, told)
        except _Away as away:
            # If it were raised, it would look like a failure of the step that has just ended.
            error = away.__cause__
            why = f"{type(error).__name__}: {error}"
            if isinstance(error, Exception) and concerns_a_key(error):  # the caller reports it
                return replace(told.made(done=False), refusal=why)
            log.warning("outcome not stored; a sweep will retry", saga=effect.saga_id, error=why)
            return told.made(done=False)
        return told.made(done=True)

    def _deliver_one(
        self, effect: SagaOutcome, task_id: str, canvas: dict[str, Any], told: _Progress
    ) -> None:
        request = _context(task_id, canvas)
        completed = effect.state == SagaState.COMPLETED
        error = None if completed else SagaFailed(**effect.failure)
        self._store(effect, _context(task_id, {**canvas, "chord": None}), error, told)
        settled = effect.settled.get(task_id, frozenset())
        for target in targets_of(canvas, completed=completed):
            if target.name not in settled:
                self._try(effect, request, target, error, told)

    # ---- the result ----

    def _store(
        self, effect: SagaOutcome, request: Any, error: SagaFailed | None, told: _Progress
    ) -> None:
        """Store the outcome at each delivery; a chord has its own turn."""
        try:
            self._store_now(effect, request, error)
        except EncodeError as refused:  # by a serializer of the app's own
            log.warning("a result cannot be stored", saga=effect.saga_id, error=str(refused))
            self._results.get().mark_as_failure(request.id, refused, call_errbacks=False)
            told.refuse(request.id, RESULT, refused)
        except Exception as refused:
            self._results.note(refused)
            raise _Away from refused

    def _store_now(self, effect: SagaOutcome, request: Any, error: SagaFailed | None) -> None:
        backend = self._results.get()
        if error is None:
            backend.mark_as_done(request.id, effect.result, request=request)
        elif effect.state == SagaState.CANCELLED:
            backend.mark_as_revoked(request.id, str(error), request=request)
        else:
            backend.mark_as_failure(request.id, error, request=request, call_errbacks=False)

    # ---- what hangs on it ----

    def _try(
        self,
        effect: SagaOutcome,
        request: Any,
        target: Target,
        error: Exception | None,
        told: _Progress,
    ) -> None:
        runs_here = target.kind == ERRBACK and self._runs_here(target)
        try:
            self._deliver(effect, request, target, error)
        except Exception as refused:
            if not runs_here and self._is_away(target, refused):
                self._results.note(refused)
                raise _Away from refused
            why = f"{type(refused).__name__}: {refused}"
            log.error(
                "an outcome cannot be delivered",
                saga=effect.saga_id,
                target=target.name,
                error=why,
            )
            told.refuse(request.id, target.name, refused)
            if target.kind == CHAIN:
                self._fail_chain(effect, request, refused, told)
        else:
            told.note(request.id, target.name)

    def _deliver(
        self, effect: SagaOutcome, request: Any, target: Target, error: Exception | None
    ) -> None:
        if target.kind == CHORD:
            state, result = _end_of(effect, error)
            self._results.get().on_chord_part_return(request, state, result)
        elif target.kind == ERRBACK:
            self._call_errback(request, target, error)
        else:
            given: dict[str, Any] = {"root_id": request.root_id, "parent_id": request.id}
            if target.kind == CHAIN:
                given["chain"] = list(request.chain[:-1])
            signature = maybe_signature(dict(target.signature), app=self.app)
            signature.apply_async((effect.result,), **given)

    def _call_errback(self, request: Any, target: Target, error: Exception | None) -> None:
        """Call an errback in this process, or by a message, as Celery's backend does."""
        errback = maybe_signature(dict(target.signature), app=self.app)
        if self._runs_here(target):
            errback(request, error, None)
        else:
            ids = {"parent_id": request.id, "root_id": request.root_id or request.id}
            errback.apply_async((request.id,), **ids)

    def _runs_here(self, target: Target) -> bool:
        try:
            task = maybe_signature(dict(target.signature), app=self.app).type
        except NotRegistered:
            return False
        header = getattr(task, "__header__", None)
        return header is not None and not isinstance(header, partial) and arity_greater(header, 1)

    def _fail_chain(
        self, effect: SagaOutcome, request: Any, error: Exception, told: _Progress
    ) -> None:
        """Deliver the error of a broken chain to the waiters for its end, and to its errbacks.

        Celery does the same if the previous task fails.
        """
        *rest, following = request.chain
        options = dict(following.get("options") or {})
        context = Context(options, id=options.get("task_id"), chain=rest, errbacks=None)
        context.group = options.get("group_id")
        if context.id:
            try:
                self._results.get().mark_as_failure(
                    context.id, error, request=context, call_errbacks=False
                )
            except Exception as failed:
                self._results.note(failed)
                raise _Away from failed
        for errback in errbacks_of(vars(request)):
            self._try(effect, request, errback, error, told)

    def _is_away(self, target: Target, error: Exception) -> bool:
        if target.kind == CHORD:
            return not isinstance(error, _FAULTS)
        with self.app.connection_for_write() as connection:  # read for its errors, not connected
            return is_away(error, connection) or isinstance(error, (NoServer, *UNREACHABLE))


class _Progress:
    """The progress of one delivery."""

    def __init__(self) -> None:
        self._parts: dict[str, tuple[str, ...]] = {}
        self._refused: list[Refusal] = []

    def note(self, task_id: str, name: str) -> None:
        self._parts[task_id] = (*self._parts.get(task_id, ()), name)

    def refuse(self, task_id: str, name: str, error: Exception) -> None:
        failure = Failure(type(error).__name__, str(error))
        self._refused.append(Refusal(task_id, name, failure))

    def made(self, *, done: bool) -> Told:
        return Told(done, self._parts, tuple(self._refused))


def _end_of(effect: SagaOutcome, error: Exception | None) -> tuple[str, Any]:
    if error is None:
        return "SUCCESS", effect.result
    return ("REVOKED" if effect.state == SagaState.CANCELLED else "FAILURE"), error


def _context(task_id: str, canvas: Mapping[str, Any]) -> Any:
    return Context(
        id=task_id,
        task=START_SAGA,
        args=[],
        kwargs={},
        errbacks=canvas.get("errbacks") or [],
        callbacks=canvas.get("callbacks"),
        chain=canvas.get("chain"),
        chord=canvas.get("chord"),
        group=canvas.get("group_id"),
        group_index=canvas.get("group_index"),
        root_id=canvas.get("root_id") or task_id,
        parent_id=canvas.get("parent_id"),
        reply_to=canvas.get("reply_to"),
        correlation_id=task_id,
        delivery_info={},
    )
