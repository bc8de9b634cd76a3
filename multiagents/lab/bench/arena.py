"""Where do measurements run?

An arena has an embedded server, and a worker for each side with the same number of children.  This
process is the client of both.  Only one side works at a time: `Arena.rest` waits for that.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multiagents.cli.errors import CommandError
from multiagents.cli.session import close_sessions, connect, environment
from multiagents.cli.worker_process import READY_S, WorkerProcess, isolate
from multiagents.core.names import QUEUE_IO
from multiagents.core.polling import until
from multiagents.core.settings import get_settings
from multiagents.devserver.server import EmbeddedServer
from multiagents.lab.bench.cpu import Meter
from multiagents.lab.bench.measurement import MeasurementPlan, SideName
from multiagents.lab.bench.shapes import GIVEN, Shape, chain_of
from multiagents.lab.bench.tasks import BARE_QUEUE, make_bare
from multiagents.storage.client import Edge
from multiagents.storage.keys import Shard

if TYPE_CHECKING:
    from multiagents.cli.session import Session

TIMEOUT_S = 300.0
"""Work that takes longer hangs."""
LISTEN_S = 1.0
"""A result is polled again after this time: Celery's Redis client sometimes misses its message."""
POLL_S = 0.005
SOON_MS = 60_000
"""Items due later than this do not belong to the current work: retentions, long timers."""
TASKS = "multiagents.lab.bench.tasks"
APPS: dict[SideName, str] = {"saga": "multiagents", "celery": f"{TASKS}:bare"}
QUEUES: dict[SideName, str] = {"saga": QUEUE_IO, "celery": BARE_QUEUE}


@dataclass(slots=True)
class SideResult:
    """The time and the errors of one side's work."""

    steps: int
    seconds: float
    errors: int = 0
    first_error: str = ""

    @property
    def rate(self) -> float:
        """Steps per second."""
        return self.steps / self.seconds


@dataclass(slots=True)
class Arena:
    """Both sides, ready for work."""

    server: EmbeddedServer
    session: Session
    bare: Any
    edge: Edge
    workers: dict[SideName, WorkerProcess] = field(default_factory=dict)

    @property
    def client(self) -> Any:
        """A redis client of the bench's own."""
        return self.edge.client

    def starter(self, side: SideName, shape: Shape) -> Callable[[], Any]:
        """A function that starts one saga or canvas of a side and returns its AsyncResult."""
        if side == "saga":
            return lambda: self.start(shape.workflow)
        return lambda: shape.canvas(self.bare).apply_async()

    def start(self, workflow: Any) -> Any:
        """Start one saga, and return its AsyncResult."""
        return self.session.runtime.start_saga.delay(workflow, GIVEN)

    def meter(self, side: SideName) -> Meter:
        """A meter of the processor time of that side's processes."""
        return Meter(worker=self.workers[side].process.pid, server=self.server.pid)

    def work(self, begin: Callable[[], Any], count: int, *, steps: int) -> SideResult:
        """Start ``count`` sagas or canvases of ``steps`` steps at once; wait for every outcome."""
        self.rest()
        began = time.perf_counter()
        results = [begin() for _ in range(count)]
        failures = [error for result in results if (error := self.wait(result))]
        seconds = time.perf_counter() - began
        return SideResult(count * steps, seconds, len(failures), (failures or [""])[0])

    def wait(self, result: Any, timeout_s: float = TIMEOUT_S) -> str:
        """Wait for an outcome; "" if it is a success, else the error."""
        from celery.exceptions import TimeoutError as CeleryTimeoutError

        ends = time.monotonic() + timeout_s
        while True:
            try:
                result.get(timeout=min(LISTEN_S, timeout_s))
            except CeleryTimeoutError as error:
                if time.monotonic() >= ends:
                    why = f"the bench's work has not ended within {timeout_s:g} s"
                    raise self._stuck(why) from error
            except Exception as error:  # noqa: BLE001 - the figure counts it under "errors"
                return f"{type(error).__name__}: {error}"
            else:
                return ""

    def rest(self) -> None:
        """Return when no message is queued and no item is due soon: the last work is over."""
        self.until(lambda: not (self.queued() or self.due_soon()), "the bench's workers to rest")

    def queued(self) -> int:
        """The number of messages in the queues of both sides."""
        return sum(int(self.client.llen(queue)) for queue in QUEUES.values())

    def due_soon(self) -> int:
        """The number of items that the engine still has to handle."""
        return self.due("-inf", self.session.now_ms + SOON_MS)

    def due(self, first: float | str, last: float | str) -> int:
        """The number of due members between two times, in Unix ms."""
        shards = map(Shard, range(self.session.runtime.settings.shards))
        return sum(int(self.client.zcount(shard.due, first, last)) for shard in shards)

    def until(self, condition: Callable[[], bool], what: str, timeout_s: float = TIMEOUT_S) -> None:
        """Wait for a condition.  Raises CommandError after the timeout."""
        if not until(condition, timeout_s, poll_s=POLL_S):
            raise self._stuck(f"waited {timeout_s:g} s for {what}")

    def _stuck(self, message: str) -> CommandError:
        """The error of work that does not end, with the last lines of the workers' logs."""
        for worker in self.workers.values():
            if worker.process.poll() is not None:
                return worker.ended()
        tails = (f"{side} side{worker.tail()}" for side, worker in self.workers.items())
        return CommandError("; ".join((message, *tails)))


@contextmanager
def arena(
    plan: MeasurementPlan, *, workers: bool = True, log_level: str = "WARNING"
) -> Iterator[Arena]:
    """An arena; afterwards none of its processes and files remains.

    ``workers=False``: a server and a client alone.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        server = stack.enter_context(
            EmbeddedServer(folder / "server", appendfsync=plan.appendfsync)
        )
        stack.callback(get_settings.cache_clear)
        isolate(stack, server.url)
        stack.callback(close_sessions)
        made = Arena(server, connect(environment()), make_bare(server.url), Edge(server.url))
        stack.callback(_close, made)
        if workers:
            for side in APPS:
                worker = _worker(side, plan, folder, log_level)
                made.workers[side] = stack.enter_context(worker)
            _greet(made)
        yield made


def _worker(side: SideName, plan: MeasurementPlan, folder: Path, log_level: str) -> WorkerProcess:
    options = ("-c", str(plan.concurrency), "-l", log_level, *(("-E",) if plan.events else ()))
    return WorkerProcess(
        f"bench-{side}",
        app=APPS[side],
        env={"MULTIAGENTS_IMPORTS": TASKS},
        options=options,
        queues=(QUEUES[side],),
        cwd=folder,
        log=folder / f"{side}.log",
    )


def _greet(made: Arena) -> None:
    """Wait until both sides have run a first step."""
    made.workers["saga"].wait_ready(made.session)
    shape = chain_of(1)
    for side in APPS:
        error = made.wait(made.starter(side, shape)(), READY_S)
        if error:
            raise CommandError(f"the bench's {side} side does not work: {error}")


def _close(made: Arena) -> None:
    for app in (made.bare, made.session.runtime.app):
        app.backend.result_consumer.stop()
        app.close()
    made.edge.close()


def machine() -> str:
    """The versions and the hardware that the figures depend on, in one line."""
    import platform

    import celery

    from multiagents.devserver.binary import locate

    binary = locate()
    server = f"{'.'.join(map(str, binary.version))} ({binary.path.name})"
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"Python {platform.python_version()}, Celery {celery.__version__}, server {server},"
        f" {cpus} processors"
    )
