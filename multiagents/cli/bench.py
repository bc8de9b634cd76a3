"""What does durability cost?  ``multiagents bench``.

In one run, on one embedded server, a bare Celery chain of N no-op tasks (default settings, result
backend on) and a saga of the same N steps take turns; what counts is the ratio of each pair,
because machines are noisy.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from multiagents.core.settings import get_settings
from multiagents.orchestrator.builder import WorkflowBuilder
from multiagents.orchestrator.workflow import Workflow
from multiagents.storage.server import EmbeddedServer

TIMEOUT_S = 300.0
"""A round that takes longer has hung."""


@dataclass(frozen=True, slots=True)
class Round:
    """One pair of measurements, in steps per second."""

    chain: float
    saga: float

    @property
    def ratio(self) -> float:
        return self.saga / self.chain


@dataclass(frozen=True, slots=True)
class Report:
    """What a bench found.  Rates are steps per second, ``added_ms`` milliseconds a step."""

    steps: int
    sagas: int
    rounds: int
    chain: float
    saga: float
    ratio: float
    ratio_min: float
    ratio_max: float
    added_ms: float
    bytes_per_saga: int
    appendfsync: str
    events: bool

    def to_dict(self) -> dict[str, Any]:
        """As JSON shows it."""
        return asdict(self)


def run(
    *,
    steps: int = 10,
    sagas: int = 40,
    rounds: int = 5,
    concurrency: int = 2,
    appendfsync: str = "everysec",
    events: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> Report:
    """Measure on an embedded server of its own, with worker processes of its own."""
    with _arena(concurrency, appendfsync, events):
        return _measure(
            steps=steps,
            sagas=sagas,
            rounds=rounds,
            appendfsync=appendfsync,
            events=events,
            progress=progress,
        )


@dataclass(frozen=True, slots=True)
class Growth:
    """How the cost of a step grows with its saga: milliseconds a step, the best of the rounds."""

    shape: str
    small: int
    large: int
    small_ms: float
    large_ms: float

    @property
    def ratio(self) -> float:
        """1.0: a step of a large saga costs what a step of a small one does."""
        return self.large_ms / self.small_ms

    def to_dict(self) -> dict[str, Any]:
        """As JSON shows it."""
        return {**asdict(self), "ratio": round(self.ratio, 2)}


def growth(
    *,
    small: int = 20,
    large: int = 200,
    rounds: int = 5,
    concurrency: int = 2,
    progress: Callable[[str], None] = lambda line: None,
) -> list[Growth]:
    """Compare small and large chains and fan-outs, taking turns."""
    with _arena(concurrency, "everysec", False):
        runtime = _client()
        return [
            _grow(runtime, shape, (small, large), rounds, progress) for shape in ("chain", "wide")
        ]


def _grow(
    runtime: Any,
    shape: str,
    sizes: tuple[int, int],
    rounds: int,
    progress: Callable[[str], None],
) -> Growth:
    best = dict.fromkeys(sizes, float("inf"))
    workflows = {size: _workflow(shape, size) for size in sizes}
    for _ in range(rounds):
        for size, workflow in workflows.items():
            count = max(sizes) // size
            begin = partial(runtime.start_saga.delay, workflow, {"n": 1})
            rate = _timed(begin, count, size)
            best[size] = min(best[size], 1000 / rate)
    found = Growth(shape, *sizes, round(best[sizes[0]], 3), round(best[sizes[1]], 3))
    progress(f"{shape}: {found.small_ms} ms a step at {sizes[0]}, {found.large_ms} at {sizes[1]}")
    return found


def _workflow(shape: str, size: int) -> Workflow:
    builder = WorkflowBuilder(f"bench_{shape}_{size}")
    if shape == "chain":
        for number in range(size):
            builder.add_step(f"s{number}", "bench_noop")
    else:
        builder.parallel([(f"p{number}", "bench_noop") for number in range(size)])
        builder.add_step("join", "bench_noop")
    return builder.build()


def _timed(begin: Callable[[], Any], count: int, steps: int) -> float:
    """Steps a second of ``count`` runs of ``steps`` steps, begun at once."""
    began = time.perf_counter()
    waiting = [begin() for _ in range(count)]
    for result in waiting:
        result.get(timeout=TIMEOUT_S)
    return count * steps / (time.perf_counter() - began)


def _client() -> Any:
    from multiagents.bootstrap import attach
    from multiagents.celery_app import make_app
    from multiagents.cli import bench_tasks  # noqa: F401 - its worker is known here from now on

    settings = get_settings()
    return attach(make_app(settings), settings)


@contextmanager
def _arena(concurrency: int, appendfsync: str, events: bool) -> Iterator[None]:
    """A server and a worker for each side; this process is pointed to them."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        server = stack.enter_context(EmbeddedServer(folder, appendfsync=appendfsync))
        environment = {"MULTIAGENTS_REDIS_URL": server.url}
        for side in ("multiagents.cli.bench_tasks:bare", "multiagents"):
            queue = "bench_bare" if side.endswith("bare") else "io"
            stack.enter_context(_worker(side, queue, concurrency, environment, events))
        with _settings(environment):
            yield


@contextmanager
def _settings(environment: dict[str, str]) -> Iterator[None]:
    """Point this process to the bench's server, then back."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    get_settings.cache_clear()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        get_settings.cache_clear()


@contextmanager
def _worker(
    app: str, queue: str, concurrency: int, environment: dict[str, str], events: bool
) -> Iterator[None]:
    more = {**environment, "MULTIAGENTS_IMPORTS": "multiagents.cli.bench_tasks"}
    command = [sys.executable, "-m", "celery", "-A", app, "worker", "-Q", queue]
    command += ["-c", str(concurrency), "-l", "WARNING", "-n", f"{queue}@bench"]
    process = subprocess.Popen(
        [*command, "-E"] if events else command,
        env={**os.environ, **more},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def _measure(
    *,
    steps: int,
    sagas: int,
    rounds: int,
    appendfsync: str,
    events: bool,
    progress: Callable[[str], None],
) -> Report:
    from celery import chain

    from multiagents.cli.bench_tasks import bare, bare_noop

    runtime, workflow = _client(), _workflow("chain", steps)
    url = get_settings().redis_url
    bare.conf.update(broker_url=url, result_backend=url)

    def chain_round(count: int) -> float:
        signatures = [bare_noop.s() for _ in range(steps)]
        return _timed(lambda: chain(*signatures).apply_async(({"n": 1},)), count, steps)

    def saga_round(count: int) -> float:
        return _timed(lambda: runtime.start_saga.delay(workflow, {"n": 1}), count, steps)

    chain_round(2)
    saga_round(2)
    found = []
    for number in range(1, rounds + 1):
        pair = Round(chain_round(sagas), saga_round(sagas))
        found.append(pair)
        progress(
            f"round {number}/{rounds}: chain {pair.chain:,.0f} steps/s,"
            f" saga {pair.saga:,.0f} steps/s, ratio {pair.ratio:.2f}"
        )
    ratios = [pair.ratio for pair in found]
    chain_rate = statistics.median(pair.chain for pair in found)
    saga_rate = statistics.median(pair.saga for pair in found)
    return Report(
        steps=steps,
        sagas=sagas,
        rounds=rounds,
        chain=round(chain_rate, 1),
        saga=round(saga_rate, 1),
        ratio=round(statistics.median(ratios), 2),
        ratio_min=round(min(ratios), 2),
        ratio_max=round(max(ratios), 2),
        added_ms=round(1000 / saga_rate - 1000 / chain_rate, 3),
        bytes_per_saga=_memory_in_flight(runtime, steps),
        appendfsync=appendfsync,
        events=events,
    )


def _memory_in_flight(runtime: Any, steps: int, sagas: int = 200) -> int:
    """Bytes in Redis for a saga whose last step waits for a worker that is not there."""
    builder = WorkflowBuilder(f"bench_wait_{steps}")
    for number in range(steps - 1):
        builder.add_step(f"s{number}", "bench_noop")
    builder.add_step("last", "bench_noop", queue="bench_nobody")
    workflow = builder.build()
    client = runtime.edge.client
    before = client.info("memory")["used_memory"]
    for _ in range(sagas):
        runtime.start_saga.delay(workflow, {"n": 1})
    _until(lambda: client.llen("bench_nobody") >= sagas)
    used = client.info("memory")["used_memory"] - before
    messages = sum(len(item) for item in client.lrange("bench_nobody", 0, -1))
    return int((used - messages) / sagas)


def _until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + TIMEOUT_S
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError("the bench's workers do not come to rest")
        time.sleep(0.02)
