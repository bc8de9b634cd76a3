"""What does a worker do for the sagas that its app hosts, besides running tasks?

A bootstep starts the sweeper, prepares what must be ready before the pool forks, and warns of a
transport that a broker's restart ends; plain tasks are fenced where a broker delivers them twice.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from functools import cache
from types import MethodType
from typing import Any, Protocol

import structlog
from celery import Celery, bootsteps, signals
from celery.exceptions import Ignore
from celery.platforms import EX_FAILURE

from multiagents.agents.dspy_worker import DSPyWorker
from multiagents.core.exceptions import InvalidInput, NewerFormat
from multiagents.core.log_context import Bound, bind_step, unbind
from multiagents.core.log_records import add_step_filter
from multiagents.core.marks import read_mark
from multiagents.core.names import QUEUE_LLM, queue_flaw
from multiagents.core.settings import Home, shown_url
from multiagents.engine.attempts import StoreEngine
from multiagents.engine.catalog import Catalog
from multiagents.engine.handback import Foreign
from multiagents.hosting import registration, start_log, unknown_tasks
from multiagents.hosting.app import errors_in_one_line
from multiagents.hosting.assembly import Host
from multiagents.hosting.step_events import channel
from multiagents.hosting.step_task import TaskProcess, WorkerTask
from multiagents.hosting.stop_flag import StopFlag
from multiagents.hosting.sweeper_thread import AtWork, Queues, Refuse, Slots, SweeperThreads
from multiagents.storage.sagas import Attempt
from multiagents.transport import app_broker
from multiagents.transport.app_broker import steady_for as steady_for
from multiagents.worker_sdk import registry as workers

log = structlog.get_logger(__name__)
BEGIN_LATER = "a plain task waits to begin until its saga's server is back"
NOT_BEGUN = "a plain task is given up that has not begun, its time-out decides"


class Hosted(Protocol):
    """The engine of an app, as far as its worker is concerned."""

    host: Host
    stopping: StopFlag
    most_steps: int | None
    """How many steps a child may run before it is replaced; None: any number."""

    catalog: Catalog

    def process(self) -> TaskProcess:
        """What the tasks of this very process share."""

    def main_engine(self) -> StoreEngine:
        """For the main process: it gives up soon."""

    persist: Callable[..., Any]
    """Asks the store until it answers: `worker_sdk.reports.persist` for its processes."""

    def sweeper_threads(
        self,
        hostname: str,
        queues: Queues,
        slots: Slots,
        *,
        at_work: AtWork,
        refuse: Refuse,
    ) -> SweeperThreads:
        """The threads for the main process."""


def add_to_worker(app: Celery, hosted: Hosted, *, own: bool) -> None:
    """Give an app's workers the engine's bootsteps.  ``own``: its settings are ours to make."""
    step = _make_step(hosted, own=own)
    app.steps["worker"].add(step)
    app.steps["consumer"].add(unknown_tasks.step_for(step.give_back))

    def on_shutting_down(sender: Any, **_: Any) -> None:
        if sender == hosted.host.coordinator.claims.hostname:
            hosted.stopping.set()

    def on_shutdown(sender: Any, **_: Any) -> None:
        if getattr(sender, "hostname", None) == hosted.host.coordinator.claims.hostname:
            step.leave()

    # Sent by the signal's handler, before the main loop has heard of it.
    signals.worker_shutting_down.connect(on_shutting_down, weak=False)
    # Sent when the pool has ended.
    signals.worker_shutdown.connect(on_shutdown, weak=False)


def _make_step(hosted: Hosted, *, own: bool) -> Any:
    class EngineStep(bootsteps.StartStopStep):  # type: ignore[misc]  # celery has no types
        """The engine's part of a worker's life."""

        requires = ("celery.worker.components:Pool",)
        running: SweeperThreads | None = None
        """Of the one worker that a process has."""
        leaving: SweeperThreads | None = None
        """Likewise, until it has ended."""

        @classmethod
        def give_back(cls, message: Foreign) -> None:
            """Leave to the threads a command whose function is not here; without them, a sweep."""
            if cls.running is not None:
                cls.running.hand_back(message)

        @classmethod
        def leave(cls) -> None:
            """The worker has ended."""
            threads, cls.leaving, cls.running = cls.leaving, None, None
            if threads is not None:
                threads.left()

        def __init__(self, parent: Any, **_: Any) -> None:
            self.threads: SweeperThreads | None = None
            self.refused = False
            self.slots = 1
            with errors_in_one_line():
                app_broker.judge(parent.app, registration.homes(parent.app))
                _check_queues(parent.app)
                _tell_home(hosted.host.settings.home)
            if own:
                app_broker.skip_ack_emulation(parent.app)
            app_broker.warn_of_transport(parent.app)
            start_log.warn_of_no_functions(parent.app, own=own)
            if isinstance(parent, parent.app.Worker):  # else of a program that may still register
                if not own:
                    start_log.tell_workflows()
                start_log.warn_of_forgotten()
                start_log.warn_of_misfits(parent.app)
                start_log.warn_of_unregistered(parent.app)
                start_log.tell_missing(workers.workers())
            if QUEUE_LLM in parent.app.amqp.queues.consume_from:
                _load_language_models()
            renew_tasks(parent.app, hosted)
            _fence_registered(parent.app, hosted)
            # Before the pool forks: its children know their limit, claim in this worker's name, and
            # see when it is stopped.
            _open_channel(hosted)
            hosted.stopping.renew()
            hosted.most_steps = parent.max_tasks_per_child
            hosted.host.coordinator.claims.hostname = parent.hostname

        def start(self, parent: Any) -> None:
            consumed = parent.app.amqp.queues
            self.threads = type(self).running = type(self).leaving = hosted.sweeper_threads(
                parent.hostname,
                lambda: list(consumed.consume_from),
                lambda: self._count_slots(parent),
                at_work=_at_work,
                refuse=self._refuse,
            )
            self.threads.start()

        def _count_slots(self, parent: Any) -> int:
            """As they were last: a pool that is being stopped cannot be asked."""
            if not hosted.stopping.is_set():
                self.slots = _slots(parent)
            return self.slots

        def register_with_event_loop(self, parent: Any, hub: Any) -> None:
            """Hear the children; Celery calls this again for each new connection."""
            channel.listen(hub)

        def _refuse(self, error: NewerFormat) -> None:
            """End the worker, warm, with an error: by the flag that its main loop looks at."""
            self.refused = True
            hosted.stopping.set()
            _stop_worker(EX_FAILURE)

        def close(self, parent: Any) -> None:
            """Before any part of the worker is stopped, warm or cold, with a signal or without."""
            hosted.stopping.set()

        def stop(self, parent: Any) -> None:
            if self.threads is not None:
                self.threads.stop()
                self.threads = type(self).running = None
            if self.refused:
                _stop_worker(None)  # a flag of the whole process, which may start another worker

        def terminate(self, parent: Any) -> None:
            """A cold stop: its tasks end with it."""
            self.leave()

    return EngineStep


def _open_channel(hosted: Hosted) -> None:
    """Let the main process know which step each delivery is at."""
    from multiagents.hosting.step_request import receive, sight  # no client needs it

    channel.open(receive)
    sight.open(hosted.main_engine().at_work)


def renew_tasks(app: Celery, hosted: Hosted) -> None:
    """Make the tasks of worker functions as the app's base class and settings are now.

    Raises InvalidInput for an option that cannot be kept for a step.
    """
    for info in registration.renewed(app, hosted.process):
        hosted.catalog.add_local(info)
    registration.check_all(app)


def _stop_worker(exit_code: int | None) -> None:
    from celery.worker import state  # slow to import, and in a worker it is there

    state.should_stop = exit_code


def _slots(worker: Any) -> int:
    """How many tasks a worker runs at once, or may with autoscaling."""
    return max(1, worker.max_concurrency or 0, worker.pool.num_processes or 0)


def _at_work() -> int:
    """How many tasks run in this worker's pool."""
    from celery.worker import state  # slow to import, and in a worker it is there

    return len(state.active_requests)


def _load_language_models() -> None:
    """Import what LLM workers need before the pool forks: its children share the memory.

    A signature or a tool that cannot be read shows here, and again in the step that needs it; it
    is no reason to stop the others.
    """
    for worker in workers.workers().values():
        if isinstance(worker, DSPyWorker):
            try:
                worker.check()
            except InvalidInput as error:
                log.error("this worker cannot run", worker=worker.name, error=str(error))
            except Exception as error:
                what = {"worker": worker.name, "place": worker.place}
                log.error("this worker cannot run", **what, exc_info=error)


def _check_queues(app: Celery) -> None:
    """Raise InvalidInput for a queue (``-Q``) that is another key: a worker would empty it."""
    for name in app.amqp.queues.consume_from:
        if flaw := queue_flaw(name):
            raise InvalidInput(f"this worker is to consume the queue {name!r}: {flaw}")


def _tell_home(home: Home) -> None:
    """In the log of each worker, so that one which looks elsewhere than others is found."""
    log.info("sagas are kept", server=shown_url(home.url), named_by=home.named_by)
    if home.flaw:
        log.warning(home.flaw, server=shown_url(home.url), named_by=home.named_by)


@signals.after_setup_logger.connect  # type: ignore[untyped-decorator]  # celery has no types
@signals.after_setup_task_logger.connect  # type: ignore[untyped-decorator]
def _know_steps(logger: Any = None, **_: Any) -> None:
    """Let a worker's log say of each line to which step it belongs, in a format that asks for it.

    Celery's formats can: its two loggers exist by now, with their handlers.
    """
    add_step_filter(logger)


class _Fenced(threading.local):
    """The plain task that this thread runs, and what it holds."""

    last: tuple[str, list[Attempt]] = ("", [])
    bound: Bound | None = None
    """For its log lines, until Celery has said how it ended."""


fenced = _Fenced()

_PASSED = "multiagents_passed"
"""Set in the request of a delivery that has passed the fence."""


def held_by(task_id: str) -> list[Attempt] | None:
    """What a plain task held when it began, if it is the last that ran in this thread."""
    last, held = fenced.last
    return held if last == task_id else None


def fence_plain_tasks(app: Celery, hosted: Hosted) -> None:
    """Fence the tasks that an app makes later, whatever its workers find when they start."""
    _fence(app.Task, hosted)


def _fence_registered(app: Celery, hosted: Hosted) -> None:
    """Fence every task that a worker is about to run, however it was made.

    Its class may descend from celery's own `Task`, have been made before `attach`, or override
    `before_start` without calling the inherited one.
    """
    for task in app.tasks.values():
        _fence(type(task), hosted)


def _fence(task_class: Any, hosted: Hosted) -> None:
    """Once for a class, also when it is fenced twice; the worker that starts last owns it."""
    if issubclass(task_class, WorkerTask):
        return
    found = inspect.getattr_static(task_class, "before_start")
    if isinstance(found, _Fence) and found.hosted is hosted:
        return
    own = vars(task_class).get("before_start")
    inner = own.inner if isinstance(own, _Fence) else own
    task_class.before_start = _Fence(task_class, inner, hosted)


def _bind(held: Attempt, workflow: str) -> None:
    _unbind()
    _unbind_after_tasks()
    fenced.bound = bind_step(
        saga=held.saga_id, workflow=workflow, step=held.step, attempt=held.attempt
    )


@cache
def _unbind_after_tasks() -> None:
    """From the first plain task on: with a receiver, Celery sends it for workers' steps too."""
    signals.task_postrun.connect(_unbind)


def _unbind(**_: Any) -> None:
    if fenced.bound is not None:
        unbind(fenced.bound)
        fenced.bound = None


class _Fence:
    """A task class's `before_start`: stops a redelivered plain task whose attempt has ended (E13).

    Not a prerun receiver, which cannot stop a task.  What the task holds is kept for its link,
    which is called in the same thread.
    """

    def __init__(self, task_class: type[Any], inner: Any, hosted: Hosted) -> None:
        """``inner``: what the class itself has defined; None if it has only inherited."""
        self.hosted = hosted
        self.inner = inner
        self._class = task_class

    def __get__(self, task: Any, task_class: type | None = None) -> Any:
        return self if task is None else MethodType(self, task)

    def __call__(self, task: Any, task_id: str, args: Any, kwargs: Any) -> None:
        request = task.request
        mark = None if isinstance(task, WorkerTask) else read_mark(request)
        # A class may call the one that it inherits, which is fenced too.
        if mark and not request.get(_PASSED):
            engine, about = self.hosted.host.engine, mark
            held = self.hosted.persist(
                lambda: engine.fence(about.saga_id, task_id, about.version),
                kept=BEGIN_LATER,
                given_up=NOT_BEGUN,
            )
            if not held:
                raise Ignore
            fenced.last = (task_id, held)
            _bind(held[0], self.hosted.host.coordinator.repository.workflow_name(about.version))
            setattr(request, _PASSED, True)
        if self.inner is None:
            inherited: Any = super(self._class, task)
            inherited.before_start(task_id, args, kwargs)
            return
        bind = getattr(self.inner, "__get__", None)  # it may be static, or no function at all
        (bind(task, type(task)) if bind else self.inner)(task_id, args, kwargs)
