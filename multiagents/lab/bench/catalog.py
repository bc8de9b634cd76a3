"""Which measurements exist?

`ENTRIES` is the table.  Measurements that do not disturb each other share an arena, in the table's
order.  The others have an arena each, because what they leave behind would disturb the next.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from multiagents.cli.errors import CommandError
from multiagents.lab.bench import speed
from multiagents.lab.bench.arena import Arena, arena
from multiagents.lab.bench.growth import growth
from multiagents.lab.bench.job import Job
from multiagents.lab.bench.leases import leases
from multiagents.lab.bench.measurement import Measurement, MeasurementPlan, Say
from multiagents.lab.bench.memory import memory
from multiagents.lab.bench.recovery import recovery
from multiagents.lab.bench.shapes import chain_of, fan_of
from multiagents.lab.bench.speed import Measure
from multiagents.lab.bench.waiting import waiting

Place = Callable[[MeasurementPlan], AbstractContextManager[Arena]]

SHARED: Place = partial(arena)
OWN: Place = partial(arena)
NO_WORKERS: Place = partial(arena, workers=False)
ALONE: Place = partial(arena, workers=False)
"""For a measurement that starts workers of its own."""
QUIET: Place = partial(arena, log_level="CRITICAL")
"""For thousands of steps that fail on purpose: their tracebacks would fill the disk."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the table."""

    name: str
    what: str
    measure: Measure
    place: Place = SHARED
    usual: bool = True
    """Whether it runs if the caller names no measurement."""


# The counts make a round last some 0.7 s or more.  In a shorter one, the idle time at the first
# start and the last outcome would weigh more than the work.
TEN, HUNDRED = partial(chain_of, 10), partial(chain_of, 100)
FAN, WIDE = partial(fan_of, 10), partial(fan_of, 1000)
PLAIN = partial(chain_of, 10, plain=True)

ENTRIES = (
    Entry("chain10", "10 steps in a chain", speed.throughput(TEN, 150)),
    Entry("plain10", "10 plain tasks in a chain", speed.throughput(PLAIN, 100)),
    Entry("chain100", "100 steps in a chain", speed.throughput(HUNDRED, 16)),
    Entry("fan10", "10 at once, and a join", speed.throughput(FAN, 100)),
    Entry(
        "wide1000",
        "1,000 at once, and a join",
        speed.throughput(WIDE, 1),
    ),
    Entry("latency", "10 steps, one chain at a time", speed.latency(TEN)),
    Entry("cpu", "CPU of a step", speed.cpu(TEN, 80)),
    Entry("growth", "", growth()),
    Entry("start", "starts of 10 steps, by one client", speed.starts(TEN), place=NO_WORKERS),
    Entry("memory", "", memory(10), place=OWN),
    Entry(
        "waiting",
        "a worker while sagas wait for a timer",
        waiting(),
        place=QUIET,
        usual=False,
    ),
    Entry(
        "leases",
        "leases of 5 s lost by mistake, at full load",
        leases(),
        place=ALONE,
        usual=False,
    ),
    Entry(
        "recovery",
        "until a killed worker's step is begun again, lease 5 s",
        recovery(),
        place=ALONE,
        usual=False,
    ),
)
NAMES = tuple(entry.name for entry in ENTRIES)


def chosen(only: str | None, *, everything: bool = False) -> tuple[Entry, ...]:
    """The entries that a comma-separated list names; without one, the usual ones or all.

    Raises CommandError for an unknown name.
    """
    if only is None:
        return tuple(entry for entry in ENTRIES if everything or entry.usual)
    wanted = {name.strip() for name in only.split(",") if name.strip()}
    unknown = sorted(wanted - set(NAMES))
    if unknown or not wanted:
        raise CommandError(
            f"--only names {', '.join(unknown) or 'nothing'}; known: {', '.join(NAMES)}"
        )
    return tuple(entry for entry in ENTRIES if entry.name in wanted)


def run(entries: Collection[Entry], plan: MeasurementPlan, say: Say) -> Iterator[Measurement]:
    """Run these measurements; yield each figure as soon as it is known."""
    for place, group in groupby(entries, key=lambda entry: entry.place):
        with place(plan) as ready:
            for entry in group:
                job = Job(entry.name, entry.what, ready, plan, say)
                yield from entry.measure(job)
