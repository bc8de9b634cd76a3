"""How does a Celery worker run in a thread of another program?

As a `WorkController` with a pool of threads.  It leaves the process alone: no signal handlers, no
logging set-up, no banner, no change of Celery's current app.  A process may have one at a time,
since some of Celery's worker state is global.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from celery import Celery
from celery.concurrency.thread import TaskPool
from celery.exceptions import WorkerShutdown

from multiagents.core.exceptions import NoServer

READY_S = 20.0
"""The time for connecting and declaring its queues."""
NOTICE_S = 1.5
"""After this time stop by a flag: a worker that waits for a lost server reads only that."""


class Pool(TaskPool):  # type: ignore[misc]  # celery has no types
    """Celery's thread pool, whose threads have the worker's app as their current app."""

    def __init__(self, *args: Any, app: Celery, **kwargs: Any) -> None:
        super().__init__(*args, app=app, **kwargs)
        # Replaces an executor without an initializer, which has not started a thread yet.
        self.executor: ThreadPoolExecutor = ThreadPoolExecutor(
            max_workers=self.limit,
            thread_name_prefix="multiagents-worker",
            initializer=app.set_current,
        )


class EmbeddedWorker:
    """A worker that starts once and stops once; neither call may run on an event loop."""

    def __init__(self, app: Celery, *, hostname: str, queues: Iterable[str], concurrency: int):
        self.hostname = hostname
        self._app = app
        self._queues = sorted(queues)
        self._concurrency = concurrency
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="multiagents-manager", daemon=True)
        self._controller: Any = None
        self._error: BaseException | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the worker runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Return once it takes work.  Raises the error of its start, or NoServer after 20 s."""
        self._thread.start()
        came = self._ready.wait(READY_S)
        if self._error is not None:
            raise self._error
        if not came or not self.is_alive:
            self.stop(timeout_s=NOTICE_S)
            raise NoServer(f"worker {self.hostname} was not ready within {READY_S:g} s")

    def stop(self, *, timeout_s: float) -> bool:
        """End it after its running attempts; False if they take longer than ``timeout_s``."""
        controller = self._controller
        if controller is not None and self.is_alive:
            controller.hub.call_soon(_shut_down)
            self._thread.join(min(NOTICE_S, timeout_s))
        if self.is_alive:
            self._insist(max(0.0, timeout_s - NOTICE_S))
        return not self.is_alive

    def consume(self, queues: Iterable[str]) -> None:
        """Take work from these queues too, and run tasks that were registered meanwhile."""
        self._controller.hub.call_soon(self._extend, sorted(queues))

    def _insist(self, timeout_s: float) -> None:
        from celery.worker import state

        state.should_stop = 0
        try:
            self._thread.join(timeout_s)
        finally:
            state.should_stop = None

    def _extend(self, queues: list[str]) -> None:
        consumer = self._controller.consumer
        consumer.update_strategies()
        for queue in queues:
            consumer.add_task_queue(queue)

    # ---- in the worker's own thread ----

    def _run(self) -> None:
        try:
            self._app.set_current()
            self._controller = self._make()
            self._controller.start()
        except BaseException as error:  # noqa: BLE001 - raised again by `start`, in its thread
            self._error = error
        finally:
            self._ready.set()

    def _make(self) -> Any:
        from billiard import pool as billiard_pool
        from celery.worker import WorkController

        self._app.finalize()
        clock_mutex, lock = self._app.clock.mutex, billiard_pool.Lock
        try:
            return WorkController(
                app=self._app,
                hostname=self.hostname,
                pool=Pool,
                concurrency=self._concurrency,
                queues=self._queues,
                ready_callback=self._on_ready,
                without_heartbeat=True,
                without_mingle=True,
                without_gossip=True,
                quiet=True,
            )
        finally:
            # A worker that owns its process needs no such locks; this one shares it.
            self._app.clock.mutex, billiard_pool.Lock = clock_mutex, lock

    def _on_ready(self, consumer: Any) -> None:
        from celery._state import _set_task_join_will_block

        # Celery sets it for worker processes; here the program may call `AsyncResult.get`.
        _set_task_join_will_block(False)
        self._ready.set()


def _shut_down() -> None:
    raise WorkerShutdown(0)
