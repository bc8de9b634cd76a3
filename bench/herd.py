"""How much load do a thousand workers' sweepers put on one server?

    python -m bench.herd                    # a table; about a minute
    python -m bench.herd --blind            # the same without spread pauses, for comparison

Each worker has one sweeper thread that reads the due set.  Here 1 to 1,000 of them run the engine's
own rounds (`SweeperThread.round`) and scripts on a real server, under one virtual clock.  A call
takes half a round trip, waits for earlier calls, runs, and takes half a round trip back.  So calls
of different workers interleave as in production, and the same seed gives the same history.

The due items are marks of deleted sagas.  Handling one takes two calls, the minimum for any item.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from heapq import heapify, heappop, heappush
from pathlib import Path
from random import Random
from typing import Any

from multiagents.core.effects import Effect, Flow
from multiagents.core.settings import Settings
from multiagents.devserver.server import EmbeddedServer
from multiagents.engine.catalog import Catalog
from multiagents.engine.composition import compose
from multiagents.engine.sweeper import Sweeper
from multiagents.hosting.sweeper_thread import SweeperThread
from multiagents.storage import keys as k
from multiagents.storage.calls import Call
from multiagents.storage.client import Edge
from multiagents.storage.keys import Shard

BEGAN_MS = 1_700_000_000_000
ROUND_TRIP_US = 500
"""A round trip between two hosts of one data centre."""
SERVICE_US = {"ZRANGE": 15, "sweep": 20}
"""The server's time for a call, with its socket, as `bench.ops` measures it."""
ITEM_US = 2
"""The time for each item that a sweep returns."""
OTHER_US = 40
SKEW_MS = 2
"""How far two hosts' corrected clocks may differ."""
LATE_WAKE_US = 300
"""How late a thread may wake."""
SLOT_US = 10_000
"""The length of the time slots in which the peak is counted."""


@dataclass(slots=True)
class Load:
    """The load on the server, and the times of the items."""

    calls: Counter[str] = field(default_factory=Counter)
    """Calls by script or command; ``empty``: sweeps that returned no item."""
    slots: Counter[int] = field(default_factory=Counter)
    """Calls by the time slot of their arrival."""
    busy_us: int = 0
    longest_wait_us: int = 0
    began: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Item -> the times at which a sweep returned it, virtual µs."""
    done: dict[str, int] = field(default_factory=dict)
    """Item -> the time at which it left the due set, virtual µs."""

    @property
    def total(self) -> int:
        return sum(self.calls.values()) - self.calls["empty"]

    @property
    def peak(self) -> int:
        """The most calls in one slot."""
        return max(self.slots.values(), default=0)

    @property
    def twice(self) -> int:
        """The number of items that sweeps returned more than once."""
        return sum(len(times) > 1 for times in self.began.values())


@dataclass(slots=True)
class HostClock:
    """The fleet's time, with the error of one host's clock."""

    fleet: Fleet
    skew_ms: int

    def now_ms(self) -> int:
        return BEGAN_MS + self.fleet.now_us // 1000 + self.skew_ms


@dataclass(frozen=True, slots=True)
class Pause(Effect[None]):
    """Effect: wait for these seconds."""

    seconds: float


class Fleet:
    """Sweepers on one server, and the time that all of them share."""

    def __init__(self, edge: Edge, *, workers: int, seed: int = 1, blind: bool = False) -> None:
        self.edge = edge
        self.now_us = 0
        self.load = Load()
        self.due_us: dict[str, int] = {}
        self._rng = Random(seed)
        self._settings = Settings(redis_url=edge.url)
        self._peers = 1 if blind else workers
        self._chance = (lambda: 0.0) if blind else self._rng.random
        self._free_us = 0
        self._queue: list[tuple[int, int, Flow[None], Any, bool]] = []
        self._count = 0
        for _ in range(workers):
            begins_us = self._rng.randrange(1_000_000)
            self._put(begins_us, self._life(self._thread()), None, arrives=False)

    def _thread(self) -> SweeperThread:
        rng, settings = self._rng, self._settings
        clock = HostClock(self, rng.randint(-SKEW_MS, SKEW_MS))
        coordinator = compose(settings=settings, clock=clock, directory=Catalog(clock))
        sweeper = Sweeper(coordinator, has_no_worker=lambda _: False, clock_ms=clock.now_ms)
        return SweeperThread(
            sweeper,
            self.edge,
            settings=settings,
            clock=clock,
            announce=None,
            peers=lambda: self._peers,
            chance=self._chance,
        )

    def add(self, name: str, *, due_us: int) -> None:
        """Put an item into the due set."""
        member = k.due_dirty(name)
        self.due_us[member] = due_us
        self.edge.client.zadd(Shard().due, {member: BEGAN_MS + due_us // 1000})

    def run(self, until_us: int) -> None:
        """Let time pass."""
        while self._queue and self._queue[0][0] <= until_us:
            self.now_us, _, life, what, arrives = heappop(self._queue)
            if arrives:
                self._serve(life, what)
            else:
                self._go_on(life, what)
        self.now_us = until_us

    def stall(self, for_us: int) -> None:
        """Let the server answer no call for this long, as while it forks or is cut off."""
        self._free_us = self.now_us + for_us

    def keep(self, workers: int) -> None:
        """Let all but ``workers`` die at once; the others do not notice it."""
        lives = list(dict.fromkeys(life for _, _, life, _, _ in self._queue))[:workers]
        dead = {entry[2] for entry in self._queue} - {*lives}
        self._queue = [entry for entry in self._queue if entry[2] in lives]
        for life in dead:
            life.close()
        heapify(self._queue)

    async def _life(self, thread: SweeperThread) -> None:
        while True:
            pause_s = await thread.round(Shard())
            await Pause(pause_s)

    def _put(self, at_us: int, life: Flow[None], what: Any, *, arrives: bool) -> None:
        self._count += 1
        heappush(self._queue, (at_us, self._count, life, what, arrives))

    def _go_on(self, life: Flow[None], reply: Any) -> None:
        effect = life.send(reply)
        if isinstance(effect, Pause):
            late_us = self._rng.randrange(LATE_WAKE_US)
            self._put(
                self.now_us + round(effect.seconds * 1e6) + late_us, life, None, arrives=False
            )
        else:
            self._put(self.now_us + ROUND_TRIP_US // 2, life, effect, arrives=True)

    def _serve(self, life: Flow[None], effect: Any) -> None:
        name = effect.script if isinstance(effect, Call) else str(effect.command[0])
        reply = self.edge.execute(effect)
        begins_us = max(self.now_us, self._free_us)
        service_us = SERVICE_US.get(name, OTHER_US)
        if name == "sweep":
            service_us += ITEM_US * len(reply)
        self._free_us = begins_us + service_us
        self._note(name, effect, reply, begins_us - self.now_us, service_us)
        self._put(self._free_us + ROUND_TRIP_US // 2, life, reply, arrives=False)

    def _note(self, name: str, effect: Any, reply: Any, wait_us: int, service_us: int) -> None:
        load = self.load
        load.calls[name] += 1
        load.slots[self.now_us // SLOT_US] += 1
        load.busy_us += service_us
        load.longest_wait_us = max(load.longest_wait_us, wait_us)
        if name == "sweep":
            load.calls["empty"] += not reply
            for item in reply:
                load.began[item.member].append(self.now_us)
        elif name == "drop" and reply:
            load.done[effect.args[0]] = self.now_us

    def lateness_ms(self) -> list[float]:
        """How late a sweep first returned each item, sorted."""
        began = self.load.began
        return sorted(
            (began[item][0] - at) / 1000 for item, at in self.due_us.items() if item in began
        )


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    scene: str
    workers: int
    calls_s: float
    looks_s: float
    sweeps_s: float
    empty_sweeps: int
    peak: int
    cpu_percent: float
    longest_wait_ms: float
    handled: int
    twice: int
    late_ms: str

    @classmethod
    def of(cls, scene: str, fleet: Fleet, workers: int, seconds: float) -> Row:
        """The row of a fleet's load over these seconds."""
        load, late = fleet.load, fleet.lateness_ms()
        shown = f"{late[len(late) // 2]:.0f} / {late[-1]:.0f}" if late else "-"
        return cls(
            scene,
            workers,
            calls_s=round(load.total / seconds, 1),
            looks_s=round(load.calls["ZRANGE"] / seconds, 1),
            sweeps_s=round(load.calls["sweep"] / seconds, 1),
            empty_sweeps=load.calls["empty"],
            peak=load.peak,
            cpu_percent=round(load.busy_us / seconds / 1e4, 2),
            longest_wait_ms=round(load.longest_wait_us / 1000, 1),
            handled=len(load.done),
            twice=load.twice,
            late_ms=shown,
        )


SECOND_US = 1_000_000


def idle(fleet: Fleet) -> float:
    """Nothing is due."""
    fleet.run(12 * SECOND_US)
    return 12


def stall(fleet: Fleet) -> float:
    """Nothing is due, but the server stalls for two seconds and then answers all calls at once."""
    fleet.run(2 * SECOND_US)
    fleet.stall(2 * SECOND_US)
    fleet.run(8 * SECOND_US)
    fleet.load = Load()
    fleet.run(20 * SECOND_US)
    return 12


def timers(fleet: Fleet) -> float:
    """Three timers that are set long before they are due."""
    for number in range(3):
        fleet.add(f"timer{number}", due_us=(3 + 3 * number) * SECOND_US)
    fleet.run(12 * SECOND_US)
    return 12


def stream(fleet: Fleet) -> float:
    """A hundred timers per second."""
    for number in range(1000):
        fleet.add(f"timer{number}", due_us=(2 * SECOND_US) + number * 10_000)
    fleet.run(14 * SECOND_US)
    return 14


def burst(fleet: Fleet) -> float:
    """Ten thousand items that are due at the same time."""
    for number in range(10_000):
        fleet.add(f"item{number}", due_us=3 * SECOND_US)
    for second in range(4, 60):
        fleet.run(second * SECOND_US)
        if len(fleet.load.done) == 10_000:
            return second
    return 60


SCENES = {scene.__name__: scene for scene in (idle, stall, timers, stream, burst)}


def measure(edge: Edge, scene: str, workers: int, *, blind: bool = False) -> Row:
    """Run one scene on an empty server."""
    edge.client.flushall()
    fleet = Fleet(edge, workers=workers, blind=blind)
    return Row.of(scene, fleet, workers, SCENES[scene](fleet))


def table(rows: Iterator[Row]) -> Iterator[str]:
    """Markdown, a line at a time."""
    heads = [field_.name for field_ in fields(Row)]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for row in rows:
        yield f"| {' | '.join(str(getattr(row, head)) for head in heads)} |"


def main() -> None:
    """Run all scenes for fleets of several sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blind", action="store_true", help="do not spread pauses")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--scenes", nargs="+", default=list(SCENES), choices=SCENES)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(Path(folder)) as server:
        edge = Edge(server.url)
        rows = (
            measure(edge, scene, workers, blind=options.blind)
            for scene in options.scenes
            for workers in options.workers
        )
        for line in table(rows):
            print(line, flush=True)
        edge.close()


if __name__ == "__main__":
    main()
