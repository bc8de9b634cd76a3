"""Do many histories keep the laws?

    python -m multiagents.lab.simulator --seed 1 --count 1000 --processes 2

runs 1,000 histories (see `history`) with progress on stderr, and prints a summary with the injected
faults.  For each broken law it prints the seed, and the exit code is then 1.

The command starts a Redis server for this, or uses the one that ``--server`` names.  Several
servers of a system are databases of that one.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import structlog

from multiagents.lab.simulator.faults import Faults, SystemShape
from multiagents.lab.simulator.history import History
from multiagents.lab.simulator.laws.saga import LawBroken
from multiagents.lab.simulator.store import Servers, own_servers

CHUNK = 50
"""Histories between two lines of progress."""


@dataclass(slots=True)
class SimulationSummary:
    """The counts of some histories."""

    histories: int = 0
    calls: int = 0
    seconds: float = 0.0
    states: Counter[str] = field(default_factory=Counter)
    shapes: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def note(self, history: History) -> None:
        """Count one history."""
        self.histories += 1
        self.calls += history.store.calls
        self.shapes[str(history.shape)] += 1
        for name, count in history.world.seen.items():
            which = self.states if name.startswith("~") else self.seen
            which[name.removeprefix("~")] += count

    def add(self, other: SimulationSummary) -> None:
        """Add the counts of another summary."""
        self.histories += other.histories
        self.calls += other.calls
        self.states += other.states
        self.shapes += other.shapes
        self.seen += other.seen
        self.broken += other.broken

    @property
    def line(self) -> str:
        """The number of histories, and their speed."""
        rate = self.histories / self.seconds if self.seconds else 0.0
        return (
            f"{self.histories} histories in {self.seconds:.1f} s ({rate:.0f}/s),"
            f" {self.calls} calls, {len(self.broken)} broken"
        )

    def __str__(self) -> str:
        parts = [self.line]
        for title, counter in (
            ("systems", self.shapes),
            ("sagas", self.states),
            ("injected and seen", self.seen),
        ):
            parts += ["", f"{title:<48}{'count':>12}", "-" * 60]
            parts += [f"{name:<48}{count:>12,}" for name, count in counter.most_common()]
        return "\n".join(parts)


def simulate(
    seeds: Iterable[int],
    servers: Servers,
    *,
    faults: Faults | None = None,
    shape: SystemShape | None = None,
    **make: Any,
) -> SimulationSummary:
    """Run the histories of these seeds.  Raises LawBroken, which names the seed.

    The servers' databases are emptied before each.  ``faults`` and ``shape`` are drawn from the
    seed by default.
    """
    summary, began = SimulationSummary(), time.perf_counter()
    for seed in seeds:
        history = History(seed, servers, faults=faults, shape=shape, **make)
        try:
            history.run()
        except Exception as error:
            raise LawBroken(f"seed {seed}: {type(error).__name__}: {error}") from error
        summary.note(history)
    summary.seconds = time.perf_counter() - began
    return summary


def survey(seeds: Iterable[int], servers: Servers, *, keep_going: bool) -> SimulationSummary:
    """Like `simulate`, but note a broken law instead of raising; ``keep_going``: run the rest."""
    summary = SimulationSummary()
    for seed in seeds:
        try:
            summary.add(simulate([seed], servers))
        except LawBroken as broken:
            summary.histories += 1
            summary.broken.append("".join(traceback.format_exception(broken)))
            if not keep_going:
                break
    return summary


_servers: list[Servers] = []
"""The servers of this process of the pool."""


def _open(urls: Any) -> None:
    _hush()
    _servers.append(Servers(urls.get()))


def _hush() -> None:
    """Switch the engine's log off: it logs every fault, and here most calls have one."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def _survey(seeds: range, keep_going: bool) -> SimulationSummary:
    return survey(seeds, _servers[0], keep_going=keep_going)


def _surveys(
    seeds: range, *, processes: int, server: str | None, keep_going: bool
) -> Iterator[SimulationSummary]:
    """Surveys of all seeds in chunks, each as soon as it is done."""
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    with ExitStack() as stack:
        if processes == 1:
            servers = stack.enter_context(own_servers(server))
            yield from (survey(chunk, servers, keep_going=keep_going) for chunk in chunks)
            return
        context = multiprocessing.get_context("spawn")
        urls = stack.enter_context(context.Manager()).Queue()
        for _ in range(processes):
            urls.put(stack.enter_context(own_servers()).urls[0].partition("?")[0])
        pool = ProcessPoolExecutor(processes, context, initializer=_open, initargs=(urls,))
        stack.enter_context(pool)
        futures: list[Future[SimulationSummary]] = [
            pool.submit(_survey, chunk, keep_going) for chunk in chunks
        ]
        try:
            yield from (future.result() for future in as_completed(futures))
        finally:
            pool.shutdown(cancel_futures=True)


def run(
    seeds: range,
    *,
    processes: int = 1,
    server: str | None = None,
    keep_going: bool = False,
    quiet: bool = False,
) -> SimulationSummary:
    """Survey the seeds, with progress on stderr; stop at a broken law unless ``keep_going``."""
    summary, began = SimulationSummary(), time.perf_counter()
    for part in _surveys(seeds, processes=processes, server=server, keep_going=keep_going):
        summary.add(part)
        summary.seconds = time.perf_counter() - began
        if not quiet:
            print(f"\r{summary.line}", end="", file=sys.stderr, flush=True)
        if summary.broken and not keep_going:
            break
    if not quiet:
        print(file=sys.stderr)
    return summary


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 1 if a law was broken."""
    parser = argparse.ArgumentParser(prog="python -m multiagents.lab.simulator")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=300, help="the number of seeds")
    parser.add_argument(
        "--processes", type=int, default=1, help="parallel processes, each with its own server"
    )
    parser.add_argument("--server", help="URL of a server whose databases 0 to 2 are EMPTIED")
    parser.add_argument("--keep-going", action="store_true", help="continue after a broken law")
    parser.add_argument("--quiet", action="store_true", help="print no progress")
    parser.add_argument("--verbose", action="store_true", help="print tracebacks")
    given = parser.parse_args(arguments)
    if given.server and given.processes > 1:
        parser.error("--server names one server, but --processes needs one each: drop one option")
    _hush()
    summary = run(
        range(given.seed, given.seed + given.count),
        processes=given.processes,
        server=given.server,
        keep_going=given.keep_going,
        quiet=given.quiet,
    )
    print(summary)
    for broken in summary.broken:
        print(broken if given.verbose else f"LawBroken: {_last(broken)}", file=sys.stderr)
    return 1 if summary.broken else 0


def _last(broken: str) -> str:
    """The last message of a traceback."""
    return broken.rpartition("LawBroken: seed")[2].join(("seed", "")).rstrip()
