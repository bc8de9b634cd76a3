"""What becomes of sagas when everything around them fails?

A history: a few sagas, several processes and a client, moved on one yield at a time in an order
drawn from a seed, over a real server and with the engine's own flows and scripts.  After a while
the faults stop; then every saga must come to rest, and the laws are judged.

    python -m multiagents.testing.simulator --seed 1 --count 1000

prints the seed that broke a law and exits 1.  The same seed gives the same history.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from multiagents.core.entries import Asked, Entry, decode
from multiagents.core.settings import Settings
from multiagents.core.states import ENDED, Command, SagaState
from multiagents.orchestrator.coordinator import Coordinator
from multiagents.orchestrator.outcome import has_dead_letters
from multiagents.orchestrator.reading import read_saga
from multiagents.orchestrator.saga import Saga, new_saga
from multiagents.orchestrator.sweeper import Sweeper
from multiagents.orchestrator.workflow import Workflow
from multiagents.storage import keys as k
from multiagents.storage import sagas as store
from multiagents.storage.calls import Call, Plain
from multiagents.storage.client import UNREACHABLE, Edge
from multiagents.storage.keys import SagaKeys
from multiagents.storage.server import EmbeddedServer
from multiagents.storage.views import View
from multiagents.testing.laws import LawBroken, judge_end, law, replayed
from multiagents.testing.random_workflows import INPUT, INPUT_TEXT, RESULT, random_workflow
from multiagents.testing.simulated import (
    LEASE_S,
    NO_FAULTS,
    Broker,
    Faults,
    Life,
    MakeCoordinator,
    MakeSweeper,
    Process,
    Sleep,
    Take,
    Thread,
    World,
    carry_out,
    some_faults,
)

CALM_STEPS = 30_000
"""More than any history needs after its faults have stopped."""
RETENTION_S = 1_000_000.0


@dataclass(slots=True)
class Summary:
    """What was simulated."""

    histories: int = 0
    calls: int = 0
    seconds: float = 0.0
    states: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        def pairs(counter: Counter[str]) -> str:
            return ", ".join(f"{name} {count}" for name, count in counter.most_common())

        rate = self.histories / self.seconds if self.seconds else 0.0
        return (
            f"{self.histories} histories in {self.seconds:.1f} s ({rate:.0f}/s),"
            f" {self.calls} calls\nsagas: {pairs(self.states)}\ninjected: {pairs(self.seen)}"
        )


class History:
    """One seed's history."""

    def __init__(
        self,
        seed: int,
        edge: Edge,
        *,
        faults: Faults | None = None,
        make_coordinator: MakeCoordinator = Coordinator,
        make_sweeper: MakeSweeper = Sweeper,
    ) -> None:
        rng = Random(seed)
        faults = some_faults(rng) if faults is None else faults
        settings = Settings(redis_url=edge.url, lease_s=LEASE_S, retention_s=RETENTION_S)
        self.edge, self.rng, self.calls = edge, rng, 0
        self.world = World(rng, settings, faults=faults, skill=rng.choice((0.7, 0.9, 1.0)))
        self.world.wide = rng.choice((0, 2, 20))
        self.broker = Broker(rng, self.world.seen)
        self.broker.faults = faults

        def process() -> Process:
            return Process(
                self.world,
                self.broker,
                make_coordinator=make_coordinator,
                make_sweeper=make_sweeper,
            )

        self.processes = [process() for _ in range(rng.choice((2, 3)))]
        self.client = process()
        self.workflows = {
            f"{seed}-{index}": random_workflow(rng, name=f"w{index}")
            for index in range(rng.choice((1, 2)))
        }
        self.client.threads = [Thread(self._customer(name)) for name in self.workflows]

    # ---- what the client does ----

    def _customer(self, saga_id: str) -> Life:
        yield Sleep(self.rng.randint(0, 2000))
        while not (yield from self._started(saga_id)):
            yield Sleep(500)
        asks = self.rng.choice((0, 0, 0, 0, 1, 3))
        for _ in range(asks):
            yield Sleep(self.rng.choice((0, 200, 2000, 8000)))
            command = self.rng.choice((*Command, Command.PAUSE, Command.CANCEL))
            step = self.rng.choice(("", *self.workflows[saga_id].by_name))
            yield from self._ask(saga_id, command, step)
        while self.world.faults != NO_FAULTS:
            yield Sleep(1000)
        if self.rng.random() < 0.7:
            yield from self._ask(saga_id, Command.RESUME)

    def _started(self, saga_id: str) -> Any:
        try:
            yield from self.client.coordinator.start(
                self.workflows[saga_id],
                saga_id=saga_id,
                waiting=(saga_id, ""),
                data={"input": INPUT_TEXT, "meta": "{}"},
            )
        except UNREACHABLE:
            return False
        return True

    def _ask(self, saga_id: str, command: Command, step: str = "") -> Life:
        request = self.world.nonce()
        entry = Asked(self.client.clock.now_ms(), command, request, step=step)
        while True:
            try:
                yield from self.client.coordinator.append(saga_id, entry)
                return
            except UNREACHABLE:
                yield Sleep(300)

    # ---- the scheduler ----

    def run(self) -> None:
        """Live through it and judge it.  Raises LawBroken."""
        for _ in range(self.rng.randint(30, 500)):
            self._step()
        self.world.faults = self.broker.faults = NO_FAULTS
        for process in self.processes:
            process.wake_ms = min(process.wake_ms, self.world.now_ms + 20_000)
        for _ in range(CALM_STEPS):
            if not self._step() and self._at_rest():
                break
        else:
            raise LawBroken(f"no rest after {CALM_STEPS} steps: {self._due()}")
        for saga_id, workflow in self.workflows.items():
            self._judge(saga_id, workflow)
        self._judge_retention()

    def _step(self) -> bool:
        """Move one thread on by one yield; False if only time has passed."""
        self.world.now_ms += self.rng.choice((0, 0, 1, 5))
        now_ms = self.world.now_ms
        able: list[tuple[Process, Thread]] = []
        wakes: list[int] = []
        for process in (*self.processes, self.client):
            if process.wake_ms > now_ms:
                wakes.append(process.wake_ms)
                continue
            if not process.threads and process is not self.client:
                process.start()
            for thread in process.threads:
                if isinstance(thread.effect, Take) and not self.broker.messages:
                    continue
                if thread.wake_ms > now_ms:
                    wakes.append(thread.wake_ms)
                else:
                    able.append((process, thread))
        if able:
            self._move(*self.rng.choice(able))
            return True
        self.world.now_ms = min(wakes, default=now_ms + 1000)
        return False

    def _move(self, process: Process, thread: Thread) -> None:
        if thread.effect is None and not self._resume(process, thread):
            return
        effect = thread.effect
        if isinstance(effect, Sleep):
            thread.wake_ms, thread.effect = self.world.now_ms + effect.ms, None
        elif not isinstance(effect, Take) or self.broker.messages:
            self._carry_out(process, thread)

    def _resume(self, process: Process, thread: Thread) -> bool:
        """Run the thread to its next yield; False at its end."""
        reply, error = thread.reply, thread.error
        thread.reply = thread.error = None
        try:
            thread.effect = thread.life.send(reply) if error is None else thread.life.throw(error)
        except StopIteration:
            process.threads.remove(thread)
            return False
        return True

    def _carry_out(self, process: Process, thread: Thread) -> None:
        """Carry out what the thread has asked for, and let faults strike."""
        world, faults = self.world, self.world.faults
        mortal = process is not self.client
        if mortal and world.happens(faults.die_before, "died before a call"):
            return process.die()
        if mortal and world.happens(faults.freeze, "froze"):
            process.wake_ms = world.now_ms + self.rng.choice((1000, 9000, 60_000))
            return None
        effect, thread.effect = thread.effect, None
        is_call = isinstance(effect, Call | Plain)
        if is_call and world.happens(faults.fail_before, "call failed"):
            thread.error = UNREACHABLE[0]("injected: not sent")
            return None
        thread.reply = self._perform(effect)
        if is_call and world.happens(faults.reply_lost, "reply lost"):
            if self.rng.random() < 0.7:
                thread.reply = self._perform(effect)
            else:
                thread.reply, thread.error = None, UNREACHABLE[0]("injected: no reply")
        if mortal and world.happens(faults.die_after, "died after a call"):
            process.die()
        return None

    def _perform(self, effect: Any) -> Any:
        if isinstance(effect, Call | Plain):
            self.calls += 1
            return self.edge.execute(effect)
        return carry_out(effect, self.world, self.broker)

    # ---- the end ----

    def _at_rest(self) -> bool:
        """Whether nothing will happen any more but the end of retention."""
        idle = all(process.threads and process.is_idle for process in self.processes)
        if not idle or self.client.threads or self.broker.messages:
            return False
        return all(member.startswith("x|") for member in self._due())

    def _due(self) -> list[str]:
        return [m.decode() for m in self.edge.client.zrange(k.Shard(0).due, 0, -1)]

    def _judge(self, saga_id: str, workflow: Workflow) -> None:
        keys = SagaKeys(saga_id)
        log = [decode(text) for text in self.edge.run(store.log(keys))]
        saga = self._stored(keys, workflow, log)
        judge_end(workflow, saga, log, self.world.ledger[saga_id])
        self._judge_store(keys, saga)
        ends = self.world.ends[saga_id]
        law(bool(ends) == saga.delivered, f"{saga_id}: delivered {len(ends)} times")
        for end in ends:
            law(end.state in ENDED, f"{saga_id}: delivered as {end.state}")
        self.world.seen[f"~{saga.state}"] += 1

    def _stored(self, keys: SagaKeys, workflow: Workflow, log: list[Entry]) -> Saga:
        """The saga as stored, which must be what its log gives."""
        view = self.edge.execute(store.load(keys))
        law(isinstance(view, View), f"{keys.id} is not stored")
        law(not view.entries, f"{keys.id}: nobody decided over {view.entries}")
        stored = read_saga(keys.id, workflow, view)
        again = replayed(workflow, _blank(keys.id, workflow, log), log)
        law(stored == again, f"{keys.id}: stored is\n{stored}\nbut the log gives\n{again}")
        return stored

    def _judge_store(self, keys: SagaKeys, saga: Saga) -> None:
        work = self.edge.execute(store.work(keys))
        law(not work, f"{keys.id}: left in outbox and claims: {work}")
        purge = k.due_purge(keys.id) in self._due()
        kept = saga.state not in ENDED or has_dead_letters(saga)
        law(purge is not kept, f"{keys.id} is {saga.state}; retention runs: {purge}")
        for state in SagaState:
            listed = self.edge.client.zscore(keys.shard.state(state), keys.id) is not None
            law(listed == (state is saga.state), f"{keys.id} is {saga.state}, index {state}")

    def _judge_retention(self) -> None:
        """When retention is over, nothing is left of what has ended (E16)."""
        purged = [m.split("|")[1] for m in self._due()]
        self.world.now_ms += round(RETENTION_S * 1000)
        for _ in range(CALM_STEPS):
            if not self._step() and not self._due():
                break
        else:
            raise LawBroken(f"retention does not end: {self._due()}")
        for saga_id in purged:
            left = [key.decode() for key in self.edge.client.keys(f"*:{saga_id}")]
            law(not left, f"{saga_id}: its retention is over, and these are left: {left}")


def _blank(saga_id: str, workflow: Workflow, log: list[Entry]) -> Saga:
    blank = new_saga(
        saga_id,
        workflow=workflow.name,
        version=workflow.version,
        steps=tuple(workflow.by_name),
        now_ms=log[0].at_ms,
    )
    results = dict.fromkeys(workflow.by_name, RESULT)
    return replace(blank, values={"input": INPUT, "results": results})


def simulate(
    seeds: Sequence[int], edge: Edge, *, faults: Faults | None = None, **make: Any
) -> Summary:
    """Live through the histories of these seeds.  Raises LawBroken, naming the seed.

    The server's database is emptied before each.
    """
    summary, began = Summary(), time.perf_counter()
    for seed in seeds:
        edge.client.flushdb()
        history = History(seed, edge, faults=faults, **make)
        try:
            history.run()
        except Exception as error:
            raise LawBroken(f"seed {seed}: {type(error).__name__}: {error}") from error
        summary.histories += 1
        summary.calls += history.calls
        for name, count in history.world.seen.items():
            which = summary.states if name.startswith("~") else summary.seen
            which[name.removeprefix("~")] += count
    summary.seconds = time.perf_counter() - began
    return summary


@contextmanager
def _edge(url: str | None) -> Iterator[Edge]:
    if url:
        yield Edge(url)
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedServer(Path(folder), appendfsync="no") as server,
    ):
        edge = Edge(server.url)
        yield edge
        edge.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate as the command line says; 1 if a law broke."""
    parser = argparse.ArgumentParser(prog="python -m multiagents.testing.simulator")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=300, help="how many seeds from there")
    parser.add_argument("--server", help="url of a server whose database is EMPTIED for this")
    parser.add_argument("--verbose", action="store_true", help="with the traceback")
    given = parser.parse_args(arguments)
    with _edge(given.server) as edge:
        try:
            print(simulate(range(given.seed, given.seed + given.count), edge))
        except LawBroken as broken:
            if given.verbose:
                traceback.print_exc()
            print(broken, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
