"""How does a saga run in one process, without a server?

With ``task_always_eager`` a saga runs to its end inside ``start_saga.delay``.  It uses the real
`decide`, the real scripts on fakeredis, and a queue in memory.  A loop drains the queue, since
nested calls would reach the recursion limit (E20).  A clock is advanced instead of a wait, so
retries happen at once.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from celery import Celery, states
from celery.result import EagerResult

from multiagents.core import ids
from multiagents.core.clock import FakeClock
from multiagents.core.entries import Failure
from multiagents.core.exceptions import InvalidResult, NoServer, SagaFailed
from multiagents.core.log_context import bind_step, unbind
from multiagents.core.ports import Assignment, Verdict
from multiagents.core.settings import Settings
from multiagents.core.states import ENDED, SagaState
from multiagents.engine.catalog import Catalog
from multiagents.engine.messages import Message, Publish
from multiagents.engine.queue_heads import Backlog, QueueHead
from multiagents.hosting.assembly import Host
from multiagents.hosting.step_task import WorkerTask, call_here
from multiagents.operations.operation import OPERATIONS, Gives
from multiagents.operations.starter import CheckInput
from multiagents.saga.outcome import SagaOutcome
from multiagents.saga.targets import TOLD
from multiagents.storage import sagas as store
from multiagents.storage.client import Edge
from multiagents.storage.keys import Shard
from multiagents.transport.custom_senders import sends_itself
from multiagents.worker_sdk import registry as workers
from multiagents.worker_sdk.attempt import perform, verdict_of
from multiagents.worker_sdk.validation import to_json
from multiagents.workflows.workflow import Workflow

MOST_ROUNDS = 100_000
"""Looks at the due set in one drain; more of them mean an endless loop."""

Begun = Assignment | Message
"""An attempt that begins: of a worker function, or (by its message) of a plain task."""
Fault = Callable[[Begun], None]


class EagerRunner:
    """Runs sagas of one app in this process."""

    def __init__(
        self,
        app: Celery,
        settings: Settings,
        catalog: Catalog,
        check_input: CheckInput,
        *,
        task_of: Callable[[str], WorkerTask],
        modules: Sequence[str] = (),
    ) -> None:
        """``task_of``: the Celery task of a worker function, by its name."""
        self._modules = modules
        self._app = app
        self._task_of = task_of
        self.asked_by = "task_always_eager"
        """The setting or tool that switched it on, for an error."""
        self._settings = settings
        self._catalog = catalog
        self._check_input = check_input
        self._queue: deque[Message] = deque()
        self.faults: list[Fault] = []
        """Called before each attempt; an error that one raises fails the attempt."""
        self.guards: list[Callable[[Workflow], None]] = []
        """Called once, with the workflow of the next saga, before it is started."""
        self.path: list[Begun] = []
        """The attempts that began, in order."""
        self.outcomes: dict[str, SagaOutcome] = {}
        self._host: Host | None = None
        self._imported = False
        self._at_work: list[str] = []
        """The sagas of the running attempts; each was started in a step of the one before it."""

    @property
    def host(self) -> Host:
        """The in-process store and the parts that work over it."""
        if self._host is None:
            self._import_modules()
            clock = FakeClock()
            edge = Edge("", perform=self._perform, client=_in_process_redis(self.asked_by))
            self._host = Host(
                edge,
                settings=self._settings,
                clock=clock,
                catalog=self._catalog,
                check_input=self._check_input,
                modules=self._modules,
                in_process=True,
            )
        return self._host

    def _import_modules(self) -> None:
        """Import once the modules that a worker of this app imports: no worker publishes them."""
        if not self._imported:
            self._app.loader.import_default_modules()
            self._imported = True

    @property
    def clock(self) -> FakeClock:
        """The clock that `advance` moves."""
        clock = self.host.clock
        if not isinstance(clock, FakeClock):
            raise AssertionError("eager mode runs on a fake clock")
        return clock

    def reset(self) -> None:
        """Forget all sagas, faults and the path."""
        self._host = None
        self._queue.clear()
        self.faults.clear()
        self.guards.clear()
        self.path.clear()
        self.outcomes.clear()

    def start(
        self,
        workflow: Any,
        input: Any = None,  # noqa: A002 - the public name of the argument
        *,
        task_id: str | None = None,
        **options: Any,
    ) -> EagerResult:
        """Run a saga until it ends or waits for an operator; its outcome as an EagerResult."""
        task_id = task_id or ids.fresh_id()
        self._guard(workflow)
        saga_id = self.host.call("start", workflow, input, task_id=task_id, **options)
        self.drain(saga_id)
        found = self.result(saga_id, task_id)
        found.saga_id = saga_id
        return found

    def call(self, operation: str, *args: Any, **kwargs: Any) -> Any:
        """Run an operation of the sync face, and all that follows from it."""
        if operation == "start":
            self._guard(kwargs.get("workflow") or args[0])
        answer = self.host.call(operation, *args, **kwargs)
        row = OPERATIONS[operation]
        if row.gives is Gives.ID:
            self.drain(answer)
        elif row.gives is Gives.SAGA:
            self.drain(answer["transaction_id"])
            return self.host.call("get", answer["transaction_id"])
        elif row.gives is Gives.LETTERS and row.changes:
            for saga_id in {letter["transaction_id"] for letter in answer}:
                self.drain(saga_id)
        return answer

    def _guard(self, workflow: str | Workflow) -> None:
        if self.guards:
            found = self.host.edge.run(self.host.service.find_workflow(workflow))
            for guard in self.guards:
                guard(found)
            self.guards.clear()

    def result(self, saga_id: str, task_id: str) -> EagerResult:
        """The saga's outcome, in the form of an ``AsyncResult``."""
        outcome = self.outcomes.get(saga_id)
        if outcome is None:
            return EagerResult(task_id, None, states.STARTED)
        if outcome.state == SagaState.COMPLETED:
            return EagerResult(task_id, outcome.result, states.SUCCESS)
        error = SagaFailed(**outcome.failure)
        ended = states.REVOKED if outcome.state == SagaState.CANCELLED else states.FAILURE
        return EagerResult(task_id, error, ended)

    # ---- the loop ----

    def drain(self, saga_id: str) -> None:
        """Run the queue, and advance the clock, until the saga ends or needs an operator.

        Does nothing within a step of that very saga: the step could not end.
        """
        if saga_id in self._at_work:
            return
        for _ in range(MOST_ROUNDS):
            self._run_queue()
            if not self._is_moving(saga_id) or not self._pass_time():
                return
        raise AssertionError(f"saga {saga_id} does not come to rest")

    def advance(self, seconds: float) -> None:
        """Advance the clock, and handle what comes due."""
        self.clock.advance(seconds)
        self._sweep()
        self._run_queue()

    def _run_queue(self) -> None:
        while self._queue:
            self._deliver(self._queue.popleft())

    def _is_moving(self, saga_id: str) -> bool:
        saga, _ = self.host.edge.run(self.host.coordinator.repository.current(saga_id))
        return saga.state not in ENDED and saga.state is not SagaState.PAUSED

    def _pass_time(self) -> bool:
        """Advance to the next due time; False if nothing is due before the end of a retention."""
        due_ms = self._first_due()
        if due_ms is None or due_ms - self.clock.now_ms() >= self._settings.retention_ms:
            return False
        self.clock.advance(max(0.0, due_ms - self.clock.now_ms()) / 1000)
        self._sweep()
        return True

    def _first_due(self) -> float | None:
        shards = map(Shard, range(self._settings.shards))
        found = [self.host.edge.execute(store.first_due(shard)) for shard in shards]
        return min((due_ms for due_ms in found if due_ms is not None), default=None)

    def _sweep(self) -> None:
        host = self.host
        for number in range(self._settings.shards):
            for item in host.edge.run(host.sweeper.due(Shard(number))):
                host.edge.run(host.sweeper.handle(item))

    # ---- what a worker and a broker would do ----

    def _perform(self, effect: Any) -> Any:
        match effect:
            case Publish(messages):
                self._queue.extend(messages)
            case SagaOutcome():
                _ = self.outcomes.setdefault(effect.saga_id, effect)
                return TOLD
            case QueueHead():
                return Backlog(len(self._queue))
            case _:
                raise TypeError(f"unknown effect {effect!r}")
        return True

    def _deliver(self, message: Message) -> None:
        if message.plain:
            self._deliver_plain(message)
            return
        held = self.host.engine.claim(
            message.saga_id,
            message.ref,
            delivery=ids.fresh_id(),
            queue=message.queue,
        )
        if held is not None:
            self._attempt(held)

    def _attempt(self, held: Assignment) -> None:
        worker = workers.workers()[held.worker]
        engine, limit = self.host.engine, self._settings.max_result_bytes
        bound = bind_step(
            saga=held.saga_id, workflow=held.workflow, step=held.step, attempt=held.attempt
        )
        try:
            self._begin(held)
            do = partial(perform, worker, held, _Leases(self.host), limit=limit)
            with self._working(held.saga_id):
                _, result = call_here(self._task_of(held.worker), held, do)
        except Exception as error:  # noqa: BLE001 - every error of a worker is an outcome
            engine.fail(held, verdict_of(error, held.kind), go_on=False)
        else:
            engine.succeed(held, result, go_on=False)
        finally:
            unbind(bound)

    def _begin(self, what: Begun) -> None:
        """Note an attempt.  Raises the error of a fault."""
        self.path.append(what)
        for fault in self.faults:
            fault(what)

    @contextmanager
    def _working(self, saga_id: str) -> Iterator[None]:
        self._at_work.append(saga_id)
        try:
            yield
        finally:
            self._at_work.remove(saga_id)

    def _deliver_plain(self, message: Message) -> None:
        task = self._app.tasks[message.task]
        try:
            self._begin(message)
        except Exception as error:  # noqa: BLE001 - it ends the task, as an error of its own would
            self._fail_plain(message, error)
            return
        options = {"task_id": message.task_id, "throw": False, "headers": dict(message.travelling)}
        own = sends_itself(task)  # an `apply_async` of its own is called here too
        send = task.apply_async if own else task.apply
        with self._working(message.saga_id):
            result = send(message.args, message.kwargs, **options)
        if not result.successful():
            self._fail_plain(message, result.result)
            return
        limit = self._settings.max_result_bytes
        value = result.result if isinstance(result.result, dict) else {"value": result.result}
        try:
            text = to_json(value, what="task result", limit=limit)
        except InvalidResult as refused:
            self._fail_plain(message, refused)
        else:
            self.host.engine.plain_ended(message.saga_id, message.task_id, text)

    def _fail_plain(self, message: Message, error: object) -> None:
        verdict = verdict_of(error, message.kind) if isinstance(error, BaseException) else None
        verdict = verdict or Verdict(Failure("TaskFailed", str(error)))
        self.host.engine.fail_delivery(message.saga_id, message.task_id, verdict, decide=True)


class _Leases:
    """Leases never expire here; notes are stored as in a worker."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def note(self, held: Assignment, field: str, value: Any) -> bool:
        notes = {held.nonce: {f"{field}:{held.step}": json.dumps(value)}}
        return not self._host.engine.renew([held], notes)


def _in_process_redis(asked_by: str) -> Any:
    try:
        import fakeredis
    except ImportError:
        raise NoServer(
            f"{asked_by} runs sagas in this process, on fakeredis, which is not installed:"
            " pip install 'multiagents[testing]'"
        ) from None
    return fakeredis.FakeRedis(server=fakeredis.FakeServer())
