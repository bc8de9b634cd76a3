"""How does Celery start a saga?

By the task ``multiagents.start_saga``.  Called with ``delay`` or in a canvas, it records the saga
at once and sends no message of its own.  From a message it does the same in a worker.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Protocol

import structlog
from celery import Task, states
from celery._state import get_current_worker_task
from celery.exceptions import Ignore
from celery.result import EagerResult

from multiagents.core import ids
from multiagents.core.exceptions import InvalidInput, MultiAgentsError, SagaFailed
from multiagents.core.input_digest import REFUSE
from multiagents.core.names import START_SAGA
from multiagents.core.states import SagaState
from multiagents.engine.headers import found_in
from multiagents.hosting.assembly import Host
from multiagents.hosting.eager import EagerRunner
from multiagents.hosting.transaction_hook import after_commit
from multiagents.transport.async_result import Outcomes
from multiagents.transport.canvas import arguments, canvas_of_call, canvas_of_request
from multiagents.transport.redelivery import Insistence
from multiagents.transport.result_backend import declare_reply, reply_of

log = structlog.get_logger(__name__)
_LATER = ("countdown", "eta")
IN_ASYNCIO = (
    "async with multiagents.Orchestrator(WORKFLOW) as orchestrator:"
    " await orchestrator.execute_workflow(WORKFLOW, INPUT)"
)
"""A whole statement; WORKFLOW is a `Workflow` there."""
NOT_A_FUNCTION = (
    "start_saga is a Celery task: start_saga(...) starts nothing; write start_saga.delay(WORKFLOW,"
    " INPUT) for an AsyncResult, or multiagents.sagas.start(WORKFLOW, INPUT) for the saga's id; in"
    f" asyncio, with what build() returned as WORKFLOW: {IN_ASYNCIO}"
)


class StartHome(Protocol):
    """The part of an app's engine that a start needs."""

    host: Host
    outcomes: Outcomes
    insistence: Insistence
    eager: EagerRunner

    def call(self, operation: str, *args: Any, **kwargs: Any) -> Any:
        """Run an operation on sagas."""


class StartSaga(Task):  # type: ignore[misc]  # celery has no types
    """``start_saga.delay(name, input, idempotency_key=None)``: the saga is recorded at once.

    The start itself sends no message; its first steps do.  The AsyncResult resolves to the saga's
    outcome.  ``map``, ``starmap`` and ``chunks`` call it like a function for each item, and get the
    sagas' ids.  Any other such call is refused, and starts nothing.
    """

    name = START_SAGA
    home: StartHome
    ignore_result = False
    acks_late = True
    reject_on_worker_lost = True
    throws = (SagaFailed,)
    """Raised only in eager mode, where this task runs the whole saga."""
    _ended: ClassVar[dict[str, Any]] = {}
    """In eager mode: the result of a saga that has just ended, by its task id."""

    def run(
        self,
        workflow: Any,
        input: Any = None,  # noqa: A002
        idempotency_key: str | None = None,
        *more: Any,
        on_conflict: str = REFUSE,
    ) -> Any:
        """Start from a message: ``send_task`` by name, ``countdown``, ``eta``.

        Its id is the saga's, so a second run starts nothing twice.  In eager mode the saga has
        ended, and Celery's own tracer runs its callbacks.
        """
        if self.request.id in self._ended:
            return _outcome(self._ended.pop(self.request.id))
        outer = _map_at_work() if self.request.called_directly else None
        if self.request.called_directly and outer is None:
            raise InvalidInput(NOT_A_FUNCTION)
        call = arguments(workflow, input, idempotency_key, *more, on_conflict=on_conflict)
        if outer is not None:
            return self.home.call("start", **call, task_id=_id_of_item(outer))
        canvas = {**canvas_of_request(self.request), **reply_of(self.app, self.request.reply_to)}
        headers, task_id = found_in(vars(self.request)), self.request.id

        def start() -> None:
            self.home.call("start", **call, task_id=task_id, canvas=canvas, headers=headers)

        self.home.insistence.insist(self, start)
        raise Ignore

    def delay_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """`delay` once the present Django transaction is committed; never if it is rolled back.

        Raises at once, so that the rows can still be rolled back: TypeError for wrong arguments,
        and InvalidInput for an input or a key that cannot be stored.  Other errors are raised at
        the commit of the transaction.
        """
        self.home.host.service.check_call(**arguments(*args, **kwargs))
        after_commit("delay_on_commit", partial(self.delay, *args, **kwargs))

    def apply_async_on_commit(self, args: Any = None, kwargs: Any = None, **options: Any) -> None:
        """`apply_async` likewise; with ``task_id=`` the caller knows the saga's id."""
        call = arguments(*(args or ()), **(kwargs or {}))
        about = {name: options[name] for name in ("task_id", "headers") if name in options}
        self.home.host.service.check_call(**call, **about)
        start = partial(self.apply_async, args, kwargs, **options)
        after_commit("apply_async_on_commit", start)

    def apply_async(
        self,
        args: Any = None,
        kwargs: Any = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        **options: Any,
    ) -> Any:
        """Record the saga, then send its first steps.

        Inside a canvas (only there is a ``parent_id``) no caller can get an error.  A refused start
        is sent as a message, and fails as a task of its own.
        """
        task_id = None if task_id is None else ids.checked_id(task_id)
        if any(options.get(name) for name in _LATER):
            return super().apply_async(
                args,
                kwargs,
                task_id=task_id,
                producer=producer,
                link=link,
                link_error=link_error,
                **options,
            )
        task_id = task_id or ids.fresh_id()
        try:
            if self.app.conf.task_always_eager:
                given = {**options, "link": link, "link_error": link_error}
                return self.apply(args, kwargs, task_id=task_id, **given)
            call = arguments(*(args or ()), **(kwargs or {}))
            canvas = canvas_of_call(link, link_error, options)
            if reply := reply_of(self.app, options.get("reply_to") or self.app.thread_oid):
                declare_reply(self.app, task_id, producer)
                canvas.update(reply)
            headers = options.get("headers")
            saga_id = self.home.call(
                "start", **call, task_id=task_id, canvas=canvas, headers=headers
            )
        except (MultiAgentsError, TypeError) as error:
            if not options.get("parent_id"):
                raise
            log.warning("a refused start is sent as a message", task=task_id, error=str(error))
            options |= {"producer": producer, "link": link, "link_error": link_error}
            return super().apply_async(args, kwargs, task_id=task_id, **options)
        return self.home.outcomes.result(task_id, saga_id)

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Run the saga here, in eager mode, with its callbacks; an EagerResult."""
        if not self.app.conf.task_always_eager:
            return super().apply(args, kwargs, **options)
        call = arguments(*(args or ()), **(kwargs or {}))
        task_id = options["task_id"] = options.get("task_id") or ids.fresh_id()
        headers = options.get("headers")
        ended = self._ended[task_id] = self.home.eager.start(
            **call, task_id=task_id, headers=headers
        )
        found = super().apply(args, kwargs, **options)
        state, error = found.state, found.result
        if state == states.IGNORED:  # it waits for an operator
            found = EagerResult(found.id, None, states.STARTED)
        elif isinstance(error, SagaFailed) and error.state == SagaState.CANCELLED:
            found = EagerResult(found.id, error, states.REVOKED)
        found.saga_id = ended.saga_id  # as `SagaResult` has it
        return found


def _outcome(result: Any) -> Any:
    """The result of a saga that ran to its end.  Raises its error, as a task would."""
    if isinstance(result.result, SagaFailed):
        raise result.result
    if result.state != states.SUCCESS:
        raise Ignore
    return result.result


_MAPS = frozenset({"celery.map", "celery.starmap"})
"""Celery's tasks that call another one for each item; chunks are starmaps."""


def _map_at_work() -> Task | None:
    """The map that starts sagas for its items, if the call comes from one."""
    outer = get_current_worker_task()
    if outer is None or outer.name not in _MAPS:
        return None
    mapped = (outer.request.kwargs or {}).get("task") or {}
    return outer if mapped.get("task") == START_SAGA else None


def _id_of_item(outer: Task) -> str:
    """The id of the saga for an item of a map, from the map's id and the item's place.

    So a redelivered map starts nothing twice.
    """
    place = getattr(outer.request, "multiagents_started", 0)
    outer.request.multiagents_started = place + 1
    return ids.derived_id("map", outer.request.id, place)
