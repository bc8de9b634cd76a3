"""What do all peers of the bench have in common?

A peer is a module ``bench.peers.NAME.run`` that hands its variants to `main`.  It prints one JSON
object per workload on stdout and nothing else there.  What holds:

- All peers run the same shapes: no-op steps that take and give a small dict.
- A batch of ``runs`` is begun at once and waited for; batches repeat until ``min_s`` is over.
  The clock counts from the first start to the last result, so starting and fetching are in it.
- Before it a few runs are made without a clock: workers connect, code is imported.
- Workers are processes that this one starts and ends; they stay in its process group, so that
  whoever started this one can end all of them.

Only the standard library is imported: each peer runs in a virtual environment of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
URL_VARIABLE = "BENCH_REDIS_URL"
"""Tells the server to worker processes that a peer starts."""
WARM_RUNS = 4
RESULT_S = 60.0
"""A run that gives no result within this time has hung."""
STOP_S = 15.0
INPUT = {"n": 1}
OUTPUT = {"ok": 1}


@dataclass(frozen=True, slots=True)
class Workload:
    """A shape: ``steps`` counts all its steps, ``share`` the part of --runs begun at once."""

    steps: int
    share: float = 1.0

    def runs(self, asked: int) -> int:
        """How many to begin at once."""
        return max(1, round(asked * self.share))


WORKLOADS = {
    "chain10": Workload(10),
    "chain100": Workload(100, share=0.1),
    "fanout10": Workload(11),
}
"""``fanout10``: ten steps side by side, then one that waits for all of them."""

Wait = Callable[[], Any]
"""Gives a run's last result; called once."""
Begin = Callable[[], Wait]
"""Starts a run."""


@dataclass(frozen=True, slots=True)
class Options:
    """Where a peer finds its server, and a folder for its files."""

    redis: str
    data: Path
    concurrency: int


@dataclass(frozen=True, slots=True)
class Guarantees:
    """What is left after a crash, in words for a table."""

    durable: str
    after_sigkill: str
    compensation: str


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run a peer.  ``arena`` starts what it needs and gives its workloads by name."""

    title: str
    settings: str
    guarantees: Guarantees
    arena: Callable[[Options], AbstractContextManager[Mapping[str, Begin]]]


def main(peer: str, packages: tuple[str, ...], variants: Mapping[str, Variant]) -> None:
    """Measure what the command line asks for; ``packages[0]`` gives the peer's version."""
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
        for name in asked.workload:
            if name in workloads:
                found = _measure(name, workloads[name], asked.runs, asked.min_s)
                print(json.dumps({**about, **found}), flush=True)


def _arguments(peer: str, variants: Mapping[str, Variant]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m bench.peers.{peer}.run")
    parser.add_argument("--redis", required=True, help="URL of an empty server")
    parser.add_argument("--data", required=True, type=Path, help="folder for files")
    parser.add_argument("--variant", default=next(iter(variants)), choices=list(variants))
    parser.add_argument("--workload", nargs="+", default=list(WORKLOADS), choices=list(WORKLOADS))
    parser.add_argument("--runs", type=int, default=60, help="chains of 10 begun at once")
    parser.add_argument("--min-s", type=float, default=1.0, help="measure at least so long")
    parser.add_argument("--concurrency", type=int, default=2, help="worker processes")
    return parser.parse_args()


def _measure(name: str, begin: Begin, asked_runs: int, min_s: float) -> dict[str, Any]:
    workload = WORKLOADS[name]
    batch = workload.runs(asked_runs)
    run_batch(begin, min(batch, WARM_RUNS))
    done, began = 0, time.perf_counter()
    while not done or time.perf_counter() - began < min_s:
        run_batch(begin, batch)
        done += batch
    elapsed_s = time.perf_counter() - began
    return {
        "workload": name,
        "runs": done,
        "at_once": batch,
        "elapsed_s": round(elapsed_s, 3),
        "steps_per_s": round(done * workload.steps / elapsed_s, 1),
    }


def run_batch(begin: Begin, count: int) -> None:
    """Begin ``count`` runs, then wait for all.  Raises ValueError for a wrong result."""
    for wait in [begin() for _ in range(count)]:
        result = wait()
        if not isinstance(result, dict) or result.get("ok") != OUTPUT["ok"]:
            raise ValueError(f"a run gave {result!r}; expected a dict with {OUTPUT}")


@contextmanager
def worker(*command: str, log: Path, **environment: str) -> Iterator[None]:
    """A Python worker process, ``python -m COMMAND``, ended with the block."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
