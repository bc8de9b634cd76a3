"""What does a worker do for the sagas that its app hosts, besides running tasks?

A bootstep checks the app, prepares what must be ready before the pool forks, and starts the
sweeper.  It warns of a transport that does not survive a restart of the broker.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import structlog
from celery import Celery, bootsteps, signals
from celery.platforms import EX_FAILURE

from multiagents.agents.dspy_worker import DSPyWorker
from multiagents.core.exceptions import InvalidInput, NewerFormat
from multiagents.core.log_records import add_step_filter
from multiagents.core.names import QUEUE_LLM, queue_flaw
from multiagents.core.settings import Home, shown_url
from multiagents.engine.attempts import StoreEngine
from multiagents.engine.catalog import Catalog
from multiagents.engine.handback import Foreign
from multiagents.hosting import fence, registration, start_log, unknown_tasks
from multiagents.hosting.app import errors_in_one_line
from multiagents.hosting.step_events import channel
from multiagents.hosting.step_task import TaskProcess
from multiagents.hosting.stop_flag import StopFlag
from multiagents.hosting.sweeper_thread import AtWork, Queues, Refuse, Slots, SweeperThreads
from multiagents.transport import app_broker
from multiagents.worker_sdk import registry as workers

log = structlog.get_logger(__name__)


class Hosted(fence.Hosting, Protocol):
    """The engine of an app, as far as its worker is concerned."""

    stopping: StopFlag
    most_steps: int | None
    """The number of steps that a child may run before it is replaced; None: any number."""

    catalog: Catalog

    def process(self) -> TaskProcess:
        """What the tasks of this process share."""

    def main_engine(self) -> StoreEngine:
        """The engine of the main process; it gives up soon."""

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
    """Give an app's workers the engine's bootsteps.  ``own``: the app is the package's."""
    step = _step_for(hosted, own=own)
    app.steps["worker"].add(step)
    app.steps["consumer"].add(unknown_tasks.step_for(step.give_back))

    def on_shutting_down(sender: Any, **_: Any) -> None:
        if sender == hosted.host.coordinator.claims.hostname:
            hosted.stopping.set()

    def on_shutdown(sender: Any, **_: Any) -> None:
        if getattr(sender, "hostname", None) == hosted.host.coordinator.claims.hostname:
            step.leave()

    # Sent by the signal's handler, before the main loop reacts.
    signals.worker_shutting_down.connect(on_shutting_down, weak=False)
    # Sent when the pool has ended.
    signals.worker_shutdown.connect(on_shutdown, weak=False)


def _step_for(hosted: Hosted, *, own: bool) -> type[EngineStep]:
    """A class of its own for each app: Celery makes the bootstep, from the class alone."""
    given = {"hosted": hosted, "own": own, "__module__": __name__}
    return type("EngineStep", (EngineStep,), given)


class EngineStep(bootsteps.StartStopStep):  # type: ignore[misc]  # celery has no types
    """The engine's part of a worker's life."""

    requires = ("celery.worker.components:Pool",)
    hosted: ClassVar[Hosted]
    own: ClassVar[bool]
    running: ClassVar[SweeperThreads | None] = None
    """Of the one worker that a process has."""
    leaving: ClassVar[SweeperThreads | None] = None
    """Likewise, until it has ended."""

    @classmethod
    def give_back(cls, message: Foreign) -> None:
        """Leave a command whose function is missing to the threads; without them, to a sweep."""
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
        self._check(parent.app)
        self._warn(parent)
        if QUEUE_LLM in parent.app.amqp.queues.consume_from:
            _load_language_models()
        renew_tasks(parent.app, self.hosted)
        fence.fence_registered(parent.app, self.hosted)
        self._prepare(parent)

    def _check(self, app: Celery) -> None:
        """Refuse to start, in one line, a worker that would do harm."""
        with errors_in_one_line():
            app_broker.judge(app, registration.homes(app))
            _check_queues(app)
            _log_home(self.hosted.host.settings.home)
        if self.own:
            app_broker.skip_ack_emulation(app)

    def _warn(self, parent: Any) -> None:
        """Log what may be wrong with the app, its tasks and its workflows."""
        app_broker.warn_of_transport(parent.app)
        start_log.warn_of_no_functions(parent.app, own=self.own)
        if isinstance(parent, parent.app.Worker):  # else of a program that may still register
            if not self.own:
                start_log.log_workflows()
            start_log.warn_of_forgotten()
            start_log.warn_of_misfits(parent.app)
            start_log.warn_of_unregistered(parent.app)
            start_log.log_missing(workers.workers())

    def _prepare(self, parent: Any) -> None:
        """Before the pool forks: children need their limit, the worker's name and its stop flag."""
        _open_channel(self.hosted)
        self.hosted.stopping.renew()
        self.hosted.most_steps = parent.max_tasks_per_child
        self.hosted.host.coordinator.claims.hostname = parent.hostname

    def start(self, parent: Any) -> None:
        consumed = parent.app.amqp.queues
        self.threads = type(self).running = type(self).leaving = self.hosted.sweeper_threads(
            parent.hostname,
            lambda: list(consumed.consume_from),
            lambda: self._count_slots(parent),
            at_work=_at_work,
            refuse=self._refuse,
        )
        self.threads.start()

    def _count_slots(self, parent: Any) -> int:
        """The present number, or the last one: a stopping pool has none."""
        if not self.hosted.stopping.is_set():
            self.slots = _slots(parent)
        return self.slots

    def register_with_event_loop(self, parent: Any, hub: Any) -> None:
        """Listen to the children; Celery calls this again for each new connection."""
        channel.listen(hub)

    def _refuse(self, error: NewerFormat) -> None:
        """End the worker, warm, with an error: by the flag that its main loop reads."""
        self.refused = True
        self.hosted.stopping.set()
        _stop_worker(EX_FAILURE)

    def close(self, parent: Any) -> None:
        """Before any part of the worker is stopped, warm or cold, with a signal or without."""
        self.hosted.stopping.set()

    def stop(self, parent: Any) -> None:
        if self.threads is not None:
            self.threads.stop()
            self.threads = type(self).running = None
        if self.refused:
            _stop_worker(None)  # a flag of the whole process, which may start another worker

    def terminate(self, parent: Any) -> None:
        """A cold stop: its tasks end with it."""
        self.leave()


def _open_channel(hosted: Hosted) -> None:
    """Connect the children, which report the step of each delivery, to the main process."""
    from multiagents.hosting.step_request import receive, sight  # no client needs it

    channel.open(receive)
    sight.open(hosted.main_engine().at_work)


def renew_tasks(app: Celery, hosted: Hosted) -> None:
    """Make the tasks of worker functions anew, by the app's present base class and settings.

    Raises InvalidInput for an option that cannot hold for a step.
    """
    for info in registration.renewed(app, hosted.process):
        hosted.catalog.add_local(info)
    registration.check_all(app)


def _stop_worker(exit_code: int | None) -> None:
    from celery.worker import state  # slow to import, and in a worker it is there

    state.should_stop = exit_code


def _slots(worker: Any) -> int:
    """The number of tasks that a worker may run at once, autoscaling included."""
    return max(1, worker.max_concurrency or 0, worker.pool.num_processes or 0)


def _at_work() -> int:
    """The number of tasks that run in this worker's pool."""
    from celery.worker import state  # slow to import, and in a worker it is there

    return len(state.active_requests)


def _load_language_models() -> None:
    """Import what LLM workers need before the pool forks: its children share the memory.

    An unreadable signature or tool is logged here, and fails the step that needs it.  The other
    workers run all the same.
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
    """Raise InvalidInput for a queue (``-Q``) that is another key, which a worker would empty."""
    for name in app.amqp.queues.consume_from:
        if flaw := queue_flaw(name):
            raise InvalidInput(f"this worker is to consume the queue {name!r}: {flaw}")


def _log_home(home: Home) -> None:
    """Log the server of the sagas, so that a worker with another one is easy to find."""
    log.info("sagas are kept", server=shown_url(home.url), named_by=home.named_by)
    if home.flaw:
        log.warning(home.flaw, server=shown_url(home.url), named_by=home.named_by)


@signals.after_setup_logger.connect  # type: ignore[untyped-decorator]  # celery has no types
@signals.after_setup_task_logger.connect  # type: ignore[untyped-decorator]
def _show_steps(logger: Any = None, **_: Any) -> None:
    """Add the step of each line to a worker's log, for a format that shows it.

    Celery's two loggers and their handlers exist by now.
    """
    add_step_filter(logger)
