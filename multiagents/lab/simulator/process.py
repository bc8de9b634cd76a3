"""What runs in a simulated process?

The engine's own flows run here.  A thread is a generator that yields Redis calls and effects.  The
scheduler moves it on by one of them at a time, so its process may die or freeze between any two.
A process handles messages, renews its leases and sweeps each server, as a worker does.

This module imitates `worker_sdk` in short: a function overruns, fails, or is cancelled or cannot
be.  Its report is repeated while the server is away, and may be given up.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random
from typing import cast

from multiagents.core.effects import Flow
from multiagents.core.entries import Failed, Failure, Report, Succeeded
from multiagents.core.exceptions import UnknownSaga
from multiagents.core.policies import RetryPolicy
from multiagents.core.ports import Assignment, WorkerInfo
from multiagents.core.states import FailureEffect
from multiagents.engine.attempts import StoreEngine
from multiagents.engine.catalog import Catalog
from multiagents.engine.claims import Continuation
from multiagents.engine.composition import compose
from multiagents.engine.coordinator import Coordinator
from multiagents.engine.handback import Foreign, HandBack
from multiagents.engine.messages import Message, no_letter
from multiagents.engine.sweeper import Sweeper
from multiagents.lab.simulator.broker import Mail, Returned, SimulatedBroker
from multiagents.lab.simulator.clocks import SKEW_MS, Found, by_a_clock_ahead
from multiagents.lab.simulator.faults import NO_FAULTS
from multiagents.lab.simulator.laws.retries import some_error
from multiagents.lab.simulator.laws.saga import law
from multiagents.lab.simulator.store import LEASE_S, Store
from multiagents.lab.simulator.sweeps import ITEMS_OWN, SimulatedSweeper
from multiagents.lab.simulator.world import Life, ProcessClock, Sleep, Take, Thread, World
from multiagents.storage import sagas as store
from multiagents.storage.client import UNREACHABLE, Edge, StoreError
from multiagents.storage.keys import Shard

SLOTS = 2
"""The number of messages that a worker process handles at once."""
WORKERS = (
    WorkerInfo("a"),
    WorkerInfo("b", timeout_s=4.0),
    WorkerInfo("c", queue="llm", retry=RetryPolicy(max_attempts=2, backoff_s=0.5)),
    WorkerInfo("undo_a"),
    WorkerInfo("undo_b", queue="llm"),
)

MakeCoordinator = Callable[..., Coordinator]
MakeSweeper = Callable[..., Sweeper]
Held = Assignment | store.Attempt


class SimulatedProcess:
    """A worker process: message slots, a heartbeat and sweepers, over one coordinator."""

    def __init__(
        self,
        world: World,
        broker: SimulatedBroker,
        kept: Store,
        *,
        number: int = 0,
        make_coordinator: MakeCoordinator = compose,
        make_sweeper: MakeSweeper = Sweeper,
    ) -> None:
        """``number``: the first process, 0, always has all functions."""
        self._number = number
        self.world, self.broker = world, broker
        self._store = kept
        self._make = make_coordinator, make_sweeper
        self.wake_ms = 0
        """The process is dead or frozen until this Unix ms."""
        self._ahead_ms = 0
        """How far its clock is ahead during the current sweep."""
        self.threads: list[Thread] = []
        self.held: dict[str, Assignment] = {}
        self._cancelled: set[str] = set()
        self.start()

    def start(self) -> None:
        """Begin without any memory."""
        world, rng = self.world, self.world.rng
        make_coordinator, make_sweeper = self._make
        self.clock = ProcessClock(world, rng.randint(-SKEW_MS, SKEW_MS))
        catalog = self._catalog = Catalog(self.clock)
        self._lacks = self._lacking()
        for info in WORKERS:
            if info.name not in self._lacks:
                alone = world.alone and info.name == "b"
                catalog.add_local(replace(info, alone=alone))
        self._foreign: list[Foreign] = []
        self.coordinator = make_coordinator(
            settings=world.settings,
            clock=self.clock,
            directory=catalog,
            nonce=world.nonce,
            wide=world.wide,
            letter_of=self.broker.letter_of if self.broker.has_lists else no_letter,
        )
        self._engine = StoreEngine(self.coordinator, cast(Edge, None), self.clock, catalog)
        sweeper = make_sweeper(
            self.coordinator,
            has_no_worker=self._has_no_worker,
            clock_ms=lambda: self.clock.now_ms() + self._ahead_ms,
            batch=world.batch,
        )
        sweeper.due = partial(self._due, sweeper.due)  # type: ignore[method-assign]  # for a fault
        sweeps = SimulatedSweeper(sweeper, world, self.clock)
        self.held, self._cancelled = {}, set()
        self._hand_back = HandBack(world.settings, self.clock, catalog)
        self.threads = [Thread(life) for life in self._lives(sweeps)]

    def _lives(self, sweeps: SimulatedSweeper) -> list[Life]:
        lives = [self._work() for _ in range(SLOTS)]
        servers = range(len(self._store.clients))
        lives += [self._beat(), *(self._sweep(sweeps, server) for server in servers)]
        return lives + ([self._give_back()] if self._lacks else [])

    def _lacking(self) -> set[str]:
        """The functions that this start of the process lacks."""
        mixed = self.world.mixed
        if mixed is None or not self._number:
            return set()
        return {info.name for info in WORKERS if mixed.random() < 0.4}

    @property
    def is_dead(self) -> bool:
        """Whether it has died and has not been restarted."""
        return not self.threads

    @property
    def is_idle(self) -> bool:
        """Whether all its slots wait for a message, and its other threads are idle."""
        slots, others = self.threads[:SLOTS], self.threads[SLOTS:]
        waiting = all(isinstance(thread.effect, Take) for thread in slots)
        return waiting and all(thread.effect is None for thread in others)

    def close(self) -> None:
        """End all its threads at once."""
        for thread in self.threads:
            thread.life.close()
        self.threads = []

    def die(self) -> None:
        """Lose all memory; another process replaces it after a while."""
        self.close()
        self.held = {}
        self.wake_ms = self.world.now_ms + self.world.rng.randint(100, 8000)

    def _has_no_worker(self, name: str) -> bool:
        return self.world.happens(self.world.faults.freeze * 20, "worker unknown")

    # ---- messages ----

    async def _work(self) -> None:
        while True:
            mail = await Take()
            try:
                await self._deal_with(mail)
            except StoreError:
                self.world.seen["message given up"] += 1
            except UnknownSaga:
                self.world.seen["message about a saga that is gone"] += 1

    async def _deal_with(self, mail: Mail | None) -> None:
        match mail:
            case Message(plain=True):
                await self._run_plain(mail)
            case Message(task=task) if task in self._lacks:
                self.world.seen["message for a function that is lacking"] += 1
                row = (mail.saga_id, *mail.ref, mail.sent_ms)
                self._foreign.append(Foreign(*row, task, mail.queue))
            case Message():
                await self._run(mail)
            case Returned(saga_id, task_id, result, report, held):
                await self._engine._plain_ended(saga_id, task_id, result, list(held))
                self.world.reports[saga_id].append(report)

    async def _run(self, message: Message) -> None:
        delivery = f"{message.step}{self.world.rng.random()}"
        held = await self.coordinator.slots.claim(
            message.saga_id,
            message.ref,
            delivery=delivery,
            queue=message.queue,
            version=message.version if self.world.rng.random() < 0.8 else "",
        )
        while held is not None:
            before, held = held, await self._perform(held, message.queue, delivery)
            alone = held is not None and self._catalog.alone(held.worker)
            law(not alone, f"{before.step!r} is continued with a step that must run alone (E14)")

    async def _perform(self, held: Assignment, queue: str, delivery: str) -> Assignment | None:
        """Run the attempt and report it; the next attempt, if the process continues."""
        rng = self.world.rng
        law(held.worker not in self._lacks, f"a process without {held.worker} began it")
        self.held[held.nonce] = held
        self.world.begun[held.saga_id].append(held)
        try:
            await Sleep(rng.choice((0, 0, 50, 500, 3000, 9000)))
            if held.nonce in self._cancelled and rng.random() < 0.5:
                return None
            if self._overruns(held):
                error = Failure("StepTimeout", "overrun")
                row = (*held.ref, held.nonce)
                given_up = Failed(self.clock.now_ms(), *row, error=error, running=True)
                self.world.seen["given up, and still running"] += 1
                await self._report(held, given_up, queue, "")
                await Sleep(rng.choice((0, 500, 3000, 9000)))
                if rng.random() < 0.3:
                    await self._end_late_in_part(held, replace(given_up, part=1), queue)
            entry = self._outcome(held)
            if _has_effect(entry, rng.random()):
                self.world.act(held)
            await Sleep(rng.choice((0, 0, 0, 2000)))
            return await self._report(held, entry, queue, delivery)
        finally:
            self.held.pop(held.nonce, None)

    async def _end_late_in_part(self, held: Assignment, part: Failed, queue: str) -> None:
        """One of two threads that still ran has ended, and the other has not."""
        self.world.act(held)
        self.world.seen["ended late in part"] += 1
        await self._report(held, part, queue, "")
        await Sleep(self.world.rng.choice((0, 500, 3000)))

    def _overruns(self, held: Assignment) -> bool:
        """Whether it overruns its timeout, and its process gives it up but cannot stop it."""
        late = 0 < held.deadline_ms < self.clock.now_ms()
        return late and self.world.rng.random() < 0.5

    def _outcome(self, held: Held) -> Succeeded | Failed:
        rng, calm = self.world.rng, self.world.faults == NO_FAULTS
        row = (self.clock.now_ms(), *held.ref, held.nonce)
        if rng.random() < max(self.world.skill, 0.95 if calm else 0):
            return Succeeded(*row)
        if rng.random() < 0.1:  # given up because another step had blocked its event loop
            blocked = Failure("LoopBlocked", "blocked")
            effect = rng.choice((FailureEffect.UNKNOWN, FailureEffect.CLEAN))
            return Failed(*row, error=blocked, effect=effect, retry_after_ms=500, counts=False)
        return Failed(
            *row,
            error=Failure("Boom", "boom"),
            effect=rng.choice((FailureEffect.UNKNOWN, FailureEffect.UNKNOWN, FailureEffect.CLEAN)),
            retryable=rng.random() < 0.6,
            retry_after_ms=rng.choice((None, None, 0, 3000)),
            classes=some_error(Random(held.nonce), held.kind, self.world.seen, often=0.5),
        )

    async def _report(
        self, held: Assignment, entry: Report, queue: str, delivery: str
    ) -> Assignment | None:
        """Report as a worker does: retry while the server is away, and give up at some point."""
        rng = self.world.rng
        result = result_of(held) if isinstance(entry, Succeeded) else None
        goes_on = bool(delivery) and rng.random() < 0.8
        # A process whose slice is over, or which is stopping, leaves the next step to others.
        allowed = rng.random() < 0.8
        go_on = Continuation(queue, delivery, held, result, allowed) if goes_on else None
        # As if it died before the decision: the next process decides, and may be late itself.
        hasty = rng.random() < 0.15
        while True:
            try:
                if hasty:
                    keys = self.coordinator.repository.keys(held.saga_id)
                    await store.report(keys, entry, result=result)
                    self.world.reports[held.saga_id].append(entry)
                    return None
                following = await self.coordinator.report(
                    held.saga_id, entry, result=result, go_on=go_on
                )
                self.world.reports[held.saga_id].append(entry)
                return following
            except StoreError:
                if rng.random() < 0.3:
                    return None
            await Sleep(200)
            entry = replace(entry, at_ms=self.clock.now_ms())  # the time of this report

    # ---- plain tasks ----

    async def _run_plain(self, message: Message) -> None:
        """A task of the user's own: fenced, run, and reported by its link or errback (E13)."""
        rng, saga_id, task_id = self.world.rng, message.saga_id, message.task_id
        # As `hosting.fence_plain_tasks` does.
        attempts = await self.coordinator.slots.fence(saga_id, task_id)
        if not attempts:
            self.world.seen["plain task fenced"] += 1
            return
        held = attempts[0]
        await Sleep(rng.choice((0, 50, 500, 3000, 9000)))
        entry = self.world.plain.get(held.nonce)
        if entry is None:  # by its idempotency key, a redelivered task does nothing again
            entry = self.world.plain[held.nonce] = self._outcome(held)
            if _has_effect(entry, rng.random()):
                self.world.act(held)
        if isinstance(entry, Succeeded):
            await self._link(message, entry, attempts)
        else:
            await self._errback(message, entry, attempts)

    async def _link(self, message: Message, entry: Succeeded, held: list[store.Attempt]) -> None:
        """Report a plain task's result in its own process, or by a message if that fails."""
        saga_id, task_id, result = message.saga_id, message.task_id, result_of(held[0])
        try:
            # The engine's own flow, which runs on a real edge in production.
            await self._engine._plain_ended(saga_id, task_id, result, held)
            self.world.reports[saga_id].append(entry)
        except StoreError:
            self.broker.put(Returned(saga_id, task_id, result, entry, tuple(held)))

    async def _errback(
        self, message: Message, failed: Failed, attempts: list[store.Attempt]
    ) -> None:
        """Run in the tracer, or in a worker's main process, which lets a sweep decide."""
        saga_id, inline = message.saga_id, self.world.rng.random() < 0.5
        failed = replace(failed, at_ms=self.clock.now_ms())
        held = await self.coordinator.log_failure(
            saga_id, message.task_id, lambda _: failed, attempts=attempts if inline else None
        )
        if held:
            self.world.reports[saga_id].append(failed)
            if inline:
                await self.coordinator.coordinate(saga_id)

    # ---- beside the work ----

    async def _beat(self) -> None:
        while True:
            try:
                await self._announce()
            except UNREACHABLE:
                self.world.seen["not announced"] += 1
            await Sleep(round(LEASE_S * 1000 / 3))
            if self.world.happens(self.world.faults.freeze * 10, "renewals held up"):
                # As if other code held the interpreter; the work itself continues.
                await Sleep(round(LEASE_S * 2000))
            for held in list(self.held.values()):
                try:
                    renewed = await self.coordinator.slots.renewal(held, {})
                except StoreError:
                    continue
                if not renewed:
                    self._cancelled.add(held.nonce)
                    self.held.pop(held.nonce, None)

    async def _announce(self) -> None:
        """Publish functions and slots: the number of slots limits fan-outs."""
        queues = [info.queue for info in WORKERS]
        if self.world.mixed is not None:
            slots = self.world.slots or 1
            await self._catalog.publish(f"w{self._number}", queues, [], slots=slots)
            await self._hand_back.wake(map(Shard, range(self.world.settings.shards)), queues)
        elif self.world.slots:
            await self._catalog.publish("all", queues, [], slots=self.world.slots)

    async def _give_back(self) -> None:
        """Give back messages whose function this process lacks."""
        while True:
            await Sleep(50 if self._foreign else 200)
            at_hand, self._foreign = self._foreign, []
            try:
                at_hand = await self._hand_back.hand_back(at_hand)
            except UNREACHABLE:
                self.world.seen["not given back at once"] += 1
            self._foreign += at_hand

    async def _sweep(self, sweeps: SimulatedSweeper, server: int) -> None:
        while True:
            await Sleep(self.world.rng.randint(300, 1500))
            try:
                for shard in self._store.shards_of(server):
                    await sweeps.round(shard)
            except ITEMS_OWN:  # like the real thread, wait and begin another round
                self.world.seen["sweep broken off"] += 1

    async def _due(self, due: Callable[[Shard], Flow[Found]], shard: Shard) -> Found:
        if self.world.happens(self.world.faults.ahead, "sweep by a clock an hour ahead"):
            return await by_a_clock_ahead(due, partial(setattr, self, "_ahead_ms"), shard)
        return await due(shard)


def result_of(held: Held) -> str:
    """The result of every step: its nonce shows whose result was stored."""
    return json.dumps({"ok": True, "by": held.nonce})


def _has_effect(entry: Succeeded | Failed, chance: float) -> bool:
    """Whether an attempt with this end took effect."""
    return isinstance(entry, Succeeded) or (
        entry.effect is not FailureEffect.CLEAN and chance < 0.5
    )
