"""How does Celery start and move sagas?

Three tasks: ``multiagents.start_saga``, ``multiagents.coordinate`` (decide over a saga; also the
``link`` of plain tasks) and ``multiagents.compensate`` (the ``link_error`` of every step).  And
`Courier` performs the effects of flows: it publishes messages and delivers outcomes.  A task loads,
calls, commits; no rule is in this file.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

import structlog
from celery import Celery, Task

from multiagents.core import ids
from multiagents.core.names import COMPENSATE, COORDINATE
from multiagents.core.states import Kind
from multiagents.engine.messages import Message, NotTaken, Publish, Unsendable
from multiagents.engine.queue_heads import Backlog, QueueDepth, QueueHead
from multiagents.hosting import fence
from multiagents.hosting.failures import Failures
from multiagents.hosting.plain_reports import Held, PlainEnds
from multiagents.hosting.start_task import StartHome, StartSaga
from multiagents.saga.outcome import SagaOutcome
from multiagents.storage.client import Edge, StoreError
from multiagents.storage.refusals import concerns_a_key
from multiagents.storage.sagas import Attempt
from multiagents.transport.backlogs import backlog_of, depth_of
from multiagents.transport.callbacks import errback
from multiagents.transport.custom_senders import sends_itself
from multiagents.transport.direct_publish import MOST_SHOWN, priority_of, routing, send_plain
from multiagents.transport.outcome_delivery import OutcomeDelivery
from multiagents.transport.publisher import Broker, HastyBroker, is_away
from multiagents.transport.result_backend import HastyBackend

log = structlog.get_logger(__name__)
NOT_SENT = "messages are not published; a sweep will retry"
TASK_NOT_SENT = "a plain task is not known to be sent; its timeout decides"


class SagaHome(StartHome, Protocol):
    """The engine of an app, as far as its tasks are concerned."""

    edge: Edge
    plain_ends: PlainEnds
    failures: Failures


class Coordinate(Task):  # type: ignore[misc]  # celery has no types
    """Decide over a saga; as a plain task's link, first log that it returned.

    A link is called in the task's own process, so it needs no message.  It is sent only if the
    process cannot wait any longer for a store that does not answer.
    """

    name = COORDINATE
    home: SagaHome
    shared = False
    ignore_result = True
    acks_late = True
    reject_on_worker_lost = True

    def run(
        self,
        result: Any = None,
        *,
        saga_id: str,
        task_id: str | None = None,
        held: list[list[Any]] | None = None,
    ) -> None:
        """Run from a message: to decide over a saga, or from a worker without this task."""
        if task_id is None:
            self.home.edge.run(self.home.host.coordinator.coordinate(saga_id))
            return
        attempts = _attempts(saga_id, held)
        ended = partial(self.home.plain_ends.report, saga_id, task_id, result, attempts)
        self.home.insistence.insist(self, ended)

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Called by Celery's tracer for a link, or to send a message."""
        if args and kwargs and kwargs.get("task_id"):
            held = fence.held_by(kwargs["task_id"])
            try:
                self.home.plain_ends.returned(kwargs["saga_id"], kwargs["task_id"], args[0], held)
            except StoreError as error:
                why = type(error).__name__
                log.warning("a result is not stored yet, it is sent as a message", error=why)
                kwargs = {**kwargs, "held": _rows(held)}
            else:
                return None  # no caller can wait for a link
        return super().apply_async(args, kwargs, **options)


def _rows(held: Held) -> list[list[Any]] | None:
    """Attempts in the form of a message."""
    if held is None:
        return None
    return [[each.kind, each.step, each.attempt, each.nonce] for each in held]


def _attempts(saga_id: str, rows: list[list[Any]] | None) -> Held:
    if rows is None:
        return None
    return [Attempt(saga_id, Kind(kind), *rest) for kind, *rest in rows]


def install(app: Celery, home: SagaHome) -> Any:
    """Register the engine's tasks with an app; return its ``start_saga``."""

    def compensate(request: Any, exc: Any = None, *what: Any) -> None:
        """Log the failure of an attempt, and decide; inline in the tracer.

        Called as ``(request, exc, traceback, saga, …)``, or by message ``(task_id, saga, …)``
        from a worker that lacks this task.
        """
        if isinstance(request, str):
            home.failures.report(str(exc), request, None, "")
        else:
            home.failures.report(what[1], request.id, exc, request.get("task") or "")

    options = {"shared": False, "ignore_result": True}
    app.register_task(type("Coordinate", (Coordinate,), {"home": home})())
    app.task(compensate, name=COMPENSATE, **options)
    start = type("StartSaga", (StartSaga,), {"home": home})()
    return app.register_task(start)


class Courier:
    """Performs the effects of flows through a Celery app.

    ``hasty``: for callers that must not wait for a broker; it sends only what it can at once.
    """

    def __init__(self, app: Celery, *, hasty: bool = False) -> None:
        self.app = app
        self._broker = HastyBroker(app) if hasty else Broker(app)
        self._tell = OutcomeDelivery(app, self._broker, HastyBackend(app))

    def __call__(self, effect: Any) -> Any:
        """Perform one effect and return its reply."""
        match effect:
            case Publish():
                return self._publish(effect)
            case SagaOutcome():
                return self._tell(effect)
            case QueueDepth():
                return depth_of(self._look, effect)
            case QueueHead():
                return self._look(effect)
        raise TypeError(f"unknown effect {effect!r}")

    # ---- messages ----

    def _publish(self, effect: Publish) -> bool:
        """Publish the messages; returns whether all are sent.

        Raises Unsendable if Celery cannot make the message, and NotTaken if a Redis broker refuses
        to put it into its queue.
        """
        if self._broker.rests():
            return False
        try:
            with self._broker.producer() as producer:
                for sent, message in enumerate(effect.messages):
                    self._send(message, producer, sent)
        except (Unsendable, NotTaken):
            raise
        except Exception as error:  # noqa: BLE001 - if raised, it would fail the step that ended
            # Not lost: the outbox has it, with the time of a sweep's next try.
            self._broker.note()
            by_time_out = any(message.plain for message in effect.messages)  # sent only once
            log.warning(TASK_NOT_SENT if by_time_out else NOT_SENT, error=type(error).__name__)
            return False
        return True

    def _send(self, message: Message, producer: Any, sent: int) -> None:
        try:
            self._send_declared(message, producer)
        except Exception as error:
            if is_away(error, producer.connection):
                raise
            if concerns_a_key(error):
                refused = NotTaken(message.queue, f"{type(error).__name__}: {error}")
                refused.sent = sent
                raise refused from error
            unsendable = Unsendable(message.task, f"{type(error).__name__}: {error}")
            unsendable.sent = sent
            raise unsendable from error

    def _send_declared(self, message: Message, producer: Any) -> None:
        """Send; if the queue exists in another form, send without a declaration."""
        try:
            self._send_task(message, producer)
        except Exception as error:
            if not self._broker.is_declared_elsewhere(message.queue, error, producer):
                raise
            self._send_task(message, producer)

    def _send_task(self, message: Message, producer: Any) -> None:
        options = self._broker.options(producer, message.queue)
        if message.plain:
            send_plain(self.app, message, producer, **options)
            return
        options.update(routing(message))
        shown = ids.shown_args(*message.signature)[:MOST_SHOWN]
        options["headers"] = {**message.headers, "argsrepr": shown}
        if self.app.conf.task_default_priority:
            # Celery itself applies it only if this app has the worker's function.
            options["priority"] = priority_of(self.app, message.priority)
        task = self.app.tasks.get(message.task)
        own = task is not None and sends_itself(task)
        send = task.apply_async if own else partial(self.app.send_task, message.task)
        send(
            message.signature,
            task_id=ids.step_id(*message.signature),
            link_error=[errback(message.signature)],
            ignore_result=True,
            producer=producer,
            **options,
        )

    # ---- looking into a queue ----

    def _look(self, effect: QueueHead) -> Backlog:
        """The content of a queue, if its broker supports that and answers at once (E10)."""
        if self._broker.rests():
            return Backlog(None)
        with self._broker.connection() as connection:
            try:
                return backlog_of(self.app, connection, effect)
            except Exception as error:
                if not (is_away(error, connection) and self._broker.note()):
                    raise
                return Backlog(None)
