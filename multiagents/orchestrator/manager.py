"""How does a program run the steps of sagas itself, beside its own work?

    manager = WorkerManager(event_bus, worker_monitor=WorkerMonitor())
    manager.register(reserve)
    await manager.start()

A `WorkerManager` runs an embedded Celery worker: the same tasks, leases and sweeps as in
``celery -A multiagents worker``, so both may serve one Redis side by side.  It also counts the
attempts that run here in the monitor, and publishes their events to the bus.  Without a monitor
and a bus, it adds nothing to an attempt.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from typing import Any, Protocol, Self, TypeVar

from multiagents.core.exceptions import InvalidInput, NotAllowed, UnknownWorker
from multiagents.core.ids import nonce
from multiagents.core.ports import Assignment
from multiagents.event_bus.bus import EventBus
from multiagents.event_bus.logger import structured
from multiagents.event_bus.narrator import MOST_DATA, Narrator
from multiagents.hosting.embedded_worker import EmbeddedWorker
from multiagents.hosting.runtime import Runtime, runtime_at
from multiagents.worker_sdk import execute, registry
from multiagents.worker_sdk.attempt import context_of
from multiagents.worker_sdk.context import Context
from multiagents.worker_sdk.leases import LeaseKeeper
from multiagents.worker_sdk.registry import Worker

T = TypeVar("T")
Done = tuple[dict[str, Any], str]
"""A result, as a dict and as JSON."""
Perform = Callable[[Worker, Assignment, LeaseKeeper], Done]

CONCURRENCY = 8
STOP_S = 10.0
"""How long `stop` waits for running attempts."""
CANCELLED_S = 2.0
"""How long it then waits for cancelled attempts to clean up."""


class AttemptMonitor(Protocol):
    """Receives the start and end of every attempt; `monitoring.WorkerMonitor` is one."""

    def record_start(self, worker_name: str, **fields: Any) -> None:
        """An attempt begins."""

    def record_success(self, worker_name: str, duration_s: float, **fields: Any) -> None:
        """An attempt has succeeded."""

    def record_failure(
        self, worker_name: str, error: BaseException | str, duration_s: float, **fields: Any
    ) -> None:
        """An attempt has failed."""


_running: WorkerManager | None = None
"""The running manager: Celery's state in a process is for one worker only."""


class RegisteredWorker:
    """A worker from `WorkerManager.get_worker`."""

    def __init__(self, worker: Worker, watch: AttemptWatch) -> None:
        self.name = worker.name
        self._worker = worker
        self._watch = watch

    async def execute(self, context: dict[str, Any]) -> dict[str, Any]:
        """Run the function once, outside any saga: no retries, no record, no undo.

        Raises the function's own errors, and InvalidResult if the result is not JSON.
        """
        given = context if isinstance(context, Context) else Context(context)
        return await asyncio.to_thread(self._counted, given)

    def _counted(self, context: Context) -> dict[str, Any]:
        def call() -> dict[str, Any]:
            return execute.execute(self._worker, context)

        return self._watch.count(self.name, call)


class AttemptWatch:
    """Reports the attempts that run in this process to the monitor and the narrator."""

    def __init__(self, monitor: AttemptMonitor | None) -> None:
        self.monitor = monitor
        self.narrator: Narrator | None = None
        self.running: dict[str, str] = {}
        """Attempts at work: nonce -> worker."""

    def wrap(self, perform: Perform) -> Perform:
        """``perform`` with reports to the monitor and the narrator."""

        def watched(worker: Worker, held: Assignment, leases: LeaseKeeper) -> Done:
            fields = {"transaction_id": held.saga_id, "step": held.step, "attempt": held.attempt}
            self.running[held.nonce] = worker.name
            try:
                return self.count(
                    worker.name,
                    lambda: self._narrated(perform, worker, held, leases),
                    **fields,
                )
            finally:
                self.running.pop(held.nonce, None)

        return watched

    def count(self, name: str, call: Callable[[], T], **fields: Any) -> T:
        """The result of the call, counted and timed by the monitor."""
        monitor = self.monitor
        if monitor is None:
            return call()
        monitor.record_start(name, **fields)
        began_s = time.perf_counter()
        try:
            result = call()
        except BaseException as error:
            monitor.record_failure(name, error, time.perf_counter() - began_s, **fields)
            raise
        monitor.record_success(name, time.perf_counter() - began_s, **fields)
        return result

    def _narrated(
        self,
        perform: Perform,
        worker: Worker,
        held: Assignment,
        leases: LeaseKeeper,
    ) -> Done:
        narrator = self.narrator
        if narrator is None:
            return perform(worker, held, leases)
        begun = narrator.began(held, _told_context(held, leases))
        try:
            done = perform(worker, held, leases)
        except BaseException as error:
            failure = execute.failure_of(error)
            narrator.failed(held, begun, f"{failure.type}: {failure.message}")
            raise
        narrator.succeeded(held, begun, done[1])
        return done


def _told_context(held: Assignment, leases: LeaseKeeper) -> dict[str, Any] | None:
    size = len(held.input) + len(held.step_result or "") + sum(map(len, held.results.values()))
    return dict(context_of(held, leases)) if size <= MOST_DATA else None


class WorkerManager:
    """Runs worker functions in this process, ``concurrency`` attempts at a time.

    It serves the Redis of its bus, or that of the settings if the bus has none.
    """

    def __init__(
        self,
        event_bus: EventBus | None = None,
        *,
        worker_monitor: AttemptMonitor | None = None,
        logger: Any = None,
        concurrency: int = CONCURRENCY,
    ) -> None:
        if concurrency < 1:
            raise InvalidInput(f"concurrency is {concurrency}: expected at least 1")
        self.event_bus = event_bus
        self.concurrency = concurrency
        self._log = structured(logger, "multiagents.worker")
        self._watch = AttemptWatch(worker_monitor)
        self._workers: dict[str, Worker] = {}
        self._home: Runtime | None = None
        self._embedded: EmbeddedWorker | None = None
        self._unwatched: Perform | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # ---- workers ----

    def register(self, worker: Worker) -> Worker:
        """Run a ``@worker`` function's steps here; also while the manager runs.

        Raises InvalidInput for any other object, and for a second function of that name.
        """
        if not isinstance(worker, Worker):
            raise InvalidInput(
                f"cannot register {worker!r}: expected a function with @worker or @dspy_worker"
            )
        if registry.find(worker.name) is not worker:
            registry.register(worker)
        self._workers[worker.name] = worker
        if self._embedded is not None and self._home is not None:
            self._embedded.consume(self._home.queues_for([worker]))
        return worker

    def get_worker(self, name: str) -> RegisteredWorker:
        """A registered worker, to run by hand.  Raises UnknownWorker with the known names."""
        if name not in self._workers:
            known = ", ".join(self._workers) or "none"
            raise UnknownWorker(f"worker {name!r} is not registered here; registered: {known}")
        return RegisteredWorker(self._workers[name], self._watch)

    @property
    def workers(self) -> tuple[str, ...]:
        """The names of the registered workers, in order."""
        return tuple(self._workers)

    @property
    def is_running(self) -> bool:
        """Whether the embedded worker takes steps."""
        return self._embedded is not None and self._embedded.is_alive

    # ---- life ----

    async def start(self) -> None:
        """Return once the embedded worker takes steps; a second call does nothing.

        Raises NoServer if no Redis answers, NotAllowed while another manager runs in this
        process.
        """
        global _running
        if self._home is not None:
            return
        if _running is not None:
            raise NotAllowed(
                "a WorkerManager already runs in this process: register the workers with that"
                " one, or start another process"
            )
        home = runtime_at(getattr(self.event_bus, "redis_url", None))
        if home.app.conf.task_always_eager:
            return  # sagas run where they are started
        _running, self._home = self, home
        try:
            await self._begin(home)
        except BaseException:
            await self.stop()
            raise

    async def stop(self, *, timeout_s: float = STOP_S) -> None:
        """Return once no attempt runs here; a second call does nothing.

        Running attempts get ``timeout_s`` to end.  Then ``async`` functions are cancelled.  Other
        functions continue, and their steps run again when their leases expire.
        """
        global _running
        home, self._home = self._home, None
        if home is None:
            return
        try:
            await self._end(home, timeout_s)
        finally:
            _running = None

    async def _begin(self, home: Runtime) -> None:
        await asyncio.to_thread(home.prepare)
        if self.event_bus is not None:
            narrator = home.narrator(self.event_bus)
            await narrator.open()
            self._watch.narrator = narrator
        process = home.process()
        if self._watch.monitor is not None or self._watch.narrator is not None:
            self._unwatched = process.perform
            process.perform = self._watch.wrap(process.perform)
        self._embedded = EmbeddedWorker(
            home.app,
            hostname=f"manager-{os.getpid()}-{nonce()[:6]}@{socket.gethostname()}",
            queues=home.queues_for(self._workers.values()),
            concurrency=self.concurrency,
        )
        await asyncio.to_thread(self._embedded.start)
        self._log.info("workers started", workers=", ".join(self._workers))

    async def _end(self, home: Runtime, timeout_s: float) -> None:
        embedded, self._embedded = self._embedded, None
        if embedded is not None:
            await self._stop_worker(embedded, timeout_s)
            await asyncio.to_thread(home.leave, embedded.hostname)
        if self._unwatched is not None:
            home.process().perform, self._unwatched = self._unwatched, None
        narrator, self._watch.narrator = self._watch.narrator, None
        if narrator is not None:
            await narrator.close()
        self._log.info("workers stopped", workers=", ".join(self._workers))

    async def _stop_worker(self, embedded: EmbeddedWorker, timeout_s: float) -> None:
        if await asyncio.to_thread(embedded.stop, timeout_s=timeout_s):
            return
        for token in list(self._watch.running):
            execute.cancel(token)
        if not await asyncio.to_thread(embedded.stop, timeout_s=CANCELLED_S):
            left = ", ".join(sorted(set(self._watch.running.values()))) or "unknown"
            self._log.warning("workers still run and are left alone", workers=left)
