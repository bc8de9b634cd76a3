"""What does a worker do for the sagas that its app hosts, besides running tasks?

A bootstep starts the sweeper and prepares what must be ready before the pool forks; plain tasks
are fenced where a broker delivers them twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

import structlog
from celery import Celery, bootsteps, signals
from celery.exceptions import Ignore
from celery.platforms import EX_FAILURE

from multiagents.core.exceptions import InvalidInput, NewerFormat
from multiagents.core.names import HEADER, QUEUE_LLM
from multiagents.event_bus.transport import TRANSPORTS
from multiagents.orchestrator.host import Host
from multiagents.orchestrator.sweeper_thread import Refuse, SweeperThreads
from multiagents.storage.sagas import Attempt
from multiagents.worker_sdk import registry as workers
from multiagents.worker_sdk.dspy_worker import DSPyWorker
from multiagents.worker_sdk.stopping import StopFlag
from multiagents.worker_sdk.tasks import WorkerTask

log = structlog.get_logger(__name__)


class Hosted(Protocol):
    """The engine of an app, as far as its worker is concerned."""

    host: Host
    stopping: StopFlag
    most_steps: int | None
    """How many steps a child may run before it is replaced; None: any number."""

    def sweeper_threads(
        self,
        hostname: str,
        queues: Callable[[], list[str]],
        slots: Callable[[], int],
        *,
        refuse: Refuse,
    ) -> SweeperThreads:
        """The threads for the main process."""


def add_to_worker(app: Celery, hosted: Hosted, *, own: bool) -> None:
    """Give an app's workers the engine's bootstep.  ``own``: its settings are ours to make."""
    app.steps["worker"].add(_make_step(hosted, own=own))

    def on_shutting_down(sender: Any, **_: Any) -> None:
        if sender == hosted.host.coordinator.claims.hostname:
            hosted.stopping.set()

    # Sent by the signal's handler, before the main loop has heard of it.
    signals.worker_shutting_down.connect(on_shutting_down, weak=False)


def _make_step(hosted: Hosted, *, own: bool) -> type:
    class EngineStep(bootsteps.StartStopStep):  # type: ignore[misc]  # celery has no types
        """The engine's part of a worker's life."""

        requires = ("celery.worker.components:Pool",)

        def __init__(self, parent: Any, **_: Any) -> None:
            self.threads: SweeperThreads | None = None
            self.refused = False
            if own:
                _skip_ack_emulation(parent.app)
            if QUEUE_LLM in parent.app.amqp.queues.consume_from:
                _load_language_models()
            # Before the pool forks: its children know their limit, claim in this worker's name, and
            # see when it is stopped.
            hosted.stopping.renew()
            hosted.most_steps = parent.max_tasks_per_child
            hosted.host.coordinator.claims.hostname = parent.hostname

        def start(self, parent: Any) -> None:
            queues = list(parent.app.amqp.queues.consume_from)
            self.threads = hosted.sweeper_threads(
                parent.hostname, lambda: queues, lambda: _slots(parent), refuse=self._refuse
            )
            self.threads.start()

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
                self.threads = None
            if self.refused:
                _stop_worker(None)  # a flag of the whole process, which may start another worker

    return EngineStep


def _stop_worker(exit_code: int | None) -> None:
    from celery.worker import state  # slow to import, and in a worker it is there

    state.should_stop = exit_code


def _slots(worker: Any) -> int:
    """How many tasks a worker runs at once, or may with autoscaling."""
    return max(1, worker.max_concurrency or 0, worker.pool.num_processes or 0)


def _load_language_models() -> None:
    """Import what LLM workers need before the pool forks: its children share the memory.

    A signature that cannot be read shows here, and again in the step that needs it.
    """
    for worker in workers.workers().values():
        if isinstance(worker, DSPyWorker):
            try:
                worker.check()
            except InvalidInput as error:
                log.error("this worker cannot run", worker=worker.name, error=str(error))


def _skip_ack_emulation(app: Celery) -> None:
    """For engine messages only, and only where the broker is a Redis (E11)."""
    scheme = str(app.conf.broker_url).partition("://")[0]
    if scheme in TRANSPORTS and not app.conf.broker_transport:
        app.conf.broker_transport = TRANSPORTS[scheme]


class _Fenced(threading.local):
    """The plain task that this thread runs, and what it holds."""

    last: tuple[str, list[Attempt]] = ("", [])


fenced = _Fenced()


def held_by(task_id: str) -> list[Attempt] | None:
    """What a plain task held when it began, if it is the last that ran in this thread."""
    last, held = fenced.last
    return held if last == task_id else None


def fence_plain_tasks(app: Celery, hosted: Hosted) -> None:
    """Stop a redelivered plain task whose attempt has ended (E13).

    On the task's class, because a prerun receiver cannot stop a task.  What it holds is kept for
    the task's link, which is called in the same thread.
    """
    inner = app.Task.before_start

    def before_start(self: Any, task_id: str, args: Any, kwargs: Any) -> None:
        mark = self.request.get(HEADER)
        if mark and not isinstance(self, WorkerTask):
            held = hosted.host.engine.fence(str(mark[0]), task_id)
            if not held:
                raise Ignore
            fenced.last = (task_id, held)
        inner(self, task_id, args, kwargs)

    app.Task.before_start = before_start
