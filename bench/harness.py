"""What do all peers of the bench have in common?

A peer is a module ``bench.peers.NAME.run`` that passes its variants to `main`.  It prints one JSON
object per workload on stdout, and nothing else there.  Rules:

- All peers run the same shapes: no-op steps that take and return a small dict.
- A peer starts a batch of ``runs`` at once and waits for all results.  It repeats batches until
  ``min_s`` is over.  The time includes the first start and the last result.
- Some runs before that are not timed: workers connect, and code is imported.
- This process starts and stops its workers.  They stay in its process group, so the runner can kill
  all of them and sum their CPU time.
- With ``--crash-after-s`` nothing is timed: the workers are killed during some runs.

This module imports only the standard library, because each peer has its own virtual environment.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
URL_VARIABLE = "BENCH_REDIS_URL"
"""The environment variable with the server's URL, for a peer's worker processes."""
STEPS_VARIABLE = "BENCH_STEPS_FILE"
"""The variable with a file that gets a line for each started step; steps take `CRASH_STEP_S`."""
WARM_RUNS = 4
RESULT_S = float(os.environ.get("BENCH_RESULT_S", "60"))
"""A run without a result within this time hangs."""
CRASH_STEP_S = 0.1
START_S = 60.0
"""How long a worker's start may take before the kill."""
STOP_S = 15.0
INPUT = {"n": 1}
OUTPUT = {"ok": 1}


@dataclass(frozen=True, slots=True)
class Workload:
    """A shape: ``steps`` counts all its steps, ``share`` is the part of --runs started at once."""

    steps: int
    share: float = 1.0

    def runs(self, asked: int) -> int:
        """The number of runs to start at once."""
        return max(1, round(asked * self.share))


WORKLOADS = {
    "chain10": Workload(10),
    "chain100": Workload(100, share=0.1),
    "fanout10": Workload(11),
}
"""``fanout10``: ten steps at the same time, then one that waits for all of them."""

Wait = Callable[[], Any]
"""Returns a run's last result; called once."""
Begin = Callable[[], Wait]
"""Starts a run."""


@dataclass(frozen=True, slots=True)
class Options:
    """A peer's server, its folder for files, and its number of processes."""

    redis: str
    data: Path
    concurrency: int


def work() -> dict[str, int]:
    """The work of a step: nothing, or in a crash run a line in a file and a sleep."""
    if path := os.environ.get(STEPS_VARIABLE):
        with Path(path).open("a") as steps:
            steps.write("step\n")
        time.sleep(CRASH_STEP_S)
    return OUTPUT


@dataclass(frozen=True, slots=True)
class Guarantees:
    """What a peer guarantees after a crash, in words for a table."""

    durable: str
    after_sigkill: str
    compensation: str


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run a peer.  ``arena`` starts its processes and yields its workloads by name."""

    title: str
    settings: str
    guarantees: Guarantees
    arena: Callable[[Options], AbstractContextManager[Mapping[str, Begin]]]


def main(peer: str, packages: tuple[str, ...], variants: Mapping[str, Variant]) -> None:
    """Run the measurements of the command line; ``packages[0]`` gives the peer's version."""
    asked = _arguments(peer, variants)
    variant = variants[asked.variant]
    options = Options(asked.redis, asked.data, asked.concurrency)
    os.environ[URL_VARIABLE] = options.redis
    about = {
        "peer": peer,
        "variant": asked.variant,
        "title": variant.title,
        "version": version(packages[0]) if packages else "",
        "packages": {name: version(name) for name in packages},
        "settings": variant.settings,
        "guarantees": asdict(variant.guarantees),
    }
    with variant.arena(options) as workloads:
        if asked.crash_after_s:
            print(json.dumps({**about, **_crash(workloads["chain10"], asked)}), flush=True)
            return
        for name in asked.workload:
            if name in workloads:
                print(json.dumps({**about, **_measure(name, workloads[name], asked)}), flush=True)


def _arguments(peer: str, variants: Mapping[str, Variant]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m bench.peers.{peer}.run")
    parser.add_argument("--redis", required=True, help="URL of an empty server")
    parser.add_argument("--data", required=True, type=Path, help="folder for files")
    parser.add_argument("--variant", default=next(iter(variants)), choices=list(variants))
    parser.add_argument("--workload", nargs="+", default=list(WORKLOADS), choices=list(WORKLOADS))
    parser.add_argument("--runs", type=int, default=60, help="chains of 10 started at once")
    parser.add_argument("--min-s", type=float, default=1.0, help="minimum seconds to measure")
    parser.add_argument("--concurrency", type=int, default=2, help="number of worker processes")
    parser.add_argument("--server-pid", type=int, help="server whose CPU time counts, too")
    parser.add_argument(
        "--crash-after-s", type=float, help="do not measure: kill the workers after these seconds"
    )
    parser.add_argument(
        "--crash-wait-s", type=float, default=75.0, help="seconds to wait for results after a kill"
    )
    return parser.parse_args()


def _measure(name: str, begin: Begin, asked: argparse.Namespace) -> dict[str, Any]:
    workload = WORKLOADS[name]
    batch = workload.runs(asked.runs)
    run_batch(begin, min(batch, WARM_RUNS))
    cpu_s, done, began = _cpu_s(asked.server_pid), 0, time.perf_counter()
    while not done or time.perf_counter() - began < asked.min_s:
        run_batch(begin, batch)
        done += batch
    elapsed_s = time.perf_counter() - began
    cpu_s = _cpu_s(asked.server_pid) - cpu_s
    steps = done * workload.steps
    return {
        "workload": name,
        "runs": done,
        "at_once": batch,
        "elapsed_s": round(elapsed_s, 3),
        "steps_per_s": round(steps / elapsed_s, 1),
        "cpu_ms_per_step": round(1000 * cpu_s / steps, 3),
    }


def run_batch(begin: Begin, count: int) -> None:
    """Start ``count`` runs, then wait for all.  Raises ValueError for a wrong result."""
    for wait in [begin() for _ in range(count)]:
        result = wait()
        if not isinstance(result, dict) or result.get("ok") != OUTPUT["ok"]:
            raise ValueError(f"a run gave {result!r}; expected a dict with {OUTPUT}")


# ---- CPU time ----


def _cpu_s(server_pid: int | None) -> float:
    """CPU seconds of this process group, its ended children and the server; 0 without /proc."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # the process has ended since the listing
            continue
        if int(fields[2]) == os.getpgrp() or int(stat.parent.name) == server_pid:
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


# ---- workers ----


class Worker:
    """A Python worker process, ``python -m COMMAND``, with its children."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._command = [sys.executable, "-m", *command]
        self._log = log
        self._process = self._start()

    def replace_by_force(self) -> None:
        """Kill the process and all its children with SIGKILL, and start another."""
        for pid in [self._process.pid, *_descendants(self._process.pid)]:
            with suppress(ProcessLookupError):  # a child may end with its parent
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._process = self._start()

    def stop(self) -> None:
        """Stop the process; kill it if it does not stop within `STOP_S`."""
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as output:
            return subprocess.Popen(
                self._command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )


_WORKERS: list[Worker] = []


@contextmanager
def worker(*command: str, log: Path) -> Iterator[None]:
    """A worker that runs until the block ends."""
    running = Worker(command, log)
    _WORKERS.append(running)
    try:
        yield
    finally:
        _WORKERS.remove(running)
        running.stop()


def _descendants(pid: int) -> list[int]:
    listed = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    children = [int(word) for text in listed for word in text.split()]
    return children + [deeper for child in children for deeper in _descendants(child)]


# ---- a crash ----


def _crash(begin: Begin, asked: argparse.Namespace) -> dict[str, Any]:
    """The number of runs with a result although all workers were killed and replaced."""
    _until_given([begin()], START_S)
    steps = Path(os.environ[STEPS_VARIABLE])
    steps.write_text("")
    waiting = [begin() for _ in range(asked.runs)]
    time.sleep(asked.crash_after_s)
    before = len(steps.read_text().splitlines())
    for running in _WORKERS:
        running.replace_by_force()
    began = time.monotonic()
    ended_s = _until_given(waiting, asked.crash_wait_s)
    return {
        "chains": asked.runs,
        "finished": len(ended_s),
        "last_after_s": round(ended_s[-1], 1) if ended_s else None,
        "waited_s": round(time.monotonic() - began, 1),
        "steps_needed": asked.runs * WORKLOADS["chain10"].steps,
        "steps_begun_before": before,
        "steps_begun": len(steps.read_text().splitlines()),
    }


def _until_given(waiting: list[Wait], within_s: float) -> list[float]:
    """The seconds until each run's result; runs without a result are left out."""
    given_s: list[float] = []
    began = time.monotonic()
    while waiting and time.monotonic() - began < within_s:
        left = [wait for wait in waiting if not _gives(wait)]
        given_s += [time.monotonic() - began] * (len(waiting) - len(left))
        waiting = left
    return given_s


def _gives(wait: Wait) -> bool:
    """Whether a run returns its result within `RESULT_S`."""
    try:
        wait()
    except Exception as error:  # noqa: BLE001 - each peer has its own timeout error
        print(f"no result: {type(error).__name__}: {error}", file=sys.stderr)
        return False
    return True
