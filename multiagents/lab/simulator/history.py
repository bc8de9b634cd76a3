"""How does one history go?

The scheduler moves several processes and a client on, one yield at a time, in an order drawn from a
seed.  Faults strike between any two yields.  After a while the faults stop.  Then every saga must
come to rest, and the laws are judged.  The same seed gives the same history.
"""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

from redis.exceptions import ResponseError

from multiagents.engine.composition import compose
from multiagents.engine.messages import NotTaken, Publish, Unsendable
from multiagents.engine.queue_heads import QueueHead
from multiagents.engine.sweeper import Sweeper
from multiagents.lab.simulator.broker import QUEUES, SENDING, Mail, SimulatedBroker
from multiagents.lab.simulator.clocks import BACK_MS, set_clock_back, sweeps_go_on
from multiagents.lab.simulator.effects import carry_out
from multiagents.lab.simulator.faults import (
    NO_FAULTS,
    NOTHING_DONE,
    ODD_ENDINGS,
    Faults,
    SystemShape,
    some_faults,
    some_shape,
)
from multiagents.lab.simulator.laws.canvas import judge_canvases, judge_ends
from multiagents.lab.simulator.laws.inputs import judge_given
from multiagents.lab.simulator.laws.saga import LawBroken, judge_end, law
from multiagents.lab.simulator.laws.storage import (
    is_compressed,
    judge_definitions,
    judge_reports,
    judge_starts,
    judge_store,
    judge_sweep,
    left_of,
    stored,
)
from multiagents.lab.simulator.laws.witness import Witness
from multiagents.lab.simulator.people import SimulatedOperators
from multiagents.lab.simulator.process import MakeCoordinator, MakeSweeper, SimulatedProcess
from multiagents.lab.simulator.store import RETENTION_S, Memory, Servers
from multiagents.lab.simulator.workflows import random_workflow
from multiagents.lab.simulator.world import Sleep, Take, Thread, World
from multiagents.storage.calls import Call, Plain
from multiagents.storage.client import UNREACHABLE, StoreError, refusal
from multiagents.workflows.workflow import Workflow

CALM_STEPS = 30_000
"""More steps than any history needs after its faults have stopped."""
FORGETS_MS = 1000
"""A server loses at most this much."""
MIXED = 0.25
"""The share of histories in which some processes lack some functions."""
OUTAGES_MS = (300, 5000, 30_000)
REFUSALS_MS = (1000, 10_000, 100_000)


class History:
    """One seed's history."""

    def __init__(
        self,
        seed: int,
        servers: Servers,
        *,
        faults: Faults | None = None,
        shape: SystemShape | None = None,
        make_coordinator: MakeCoordinator = compose,
        make_sweeper: MakeSweeper = Sweeper,
    ) -> None:
        self.rng = rng = Random(seed)
        faults = some_faults(rng) if faults is None else faults
        self.shape = shape = some_shape(rng) if shape is None else shape
        self.store = servers.store(shape)
        skill = rng.choice((0.7, 0.9, 1.0))
        self.world = World(rng, self.store.settings, faults=faults, skill=skill)
        self._stays_picky = rng.random() < 0.5
        self.world.alone = rng.random() < 0.3
        self.world.wide = rng.choice((0, 2, 20))
        self.world.slots = rng.choice((0, 0, 1, 2))
        mixed = Random(f"mixed {seed}")  # a separate source keeps the rest of a seed's history
        self.world.mixed = mixed if mixed.random() < MIXED else None
        self.world.batch = rng.choice((1, 3, 100, 100))
        self.broker = SimulatedBroker(rng, self.world.seen, self.store, letters=shape.letters)
        self.broker.faults = faults
        makes: dict[str, Any] = {"make_coordinator": make_coordinator, "make_sweeper": make_sweeper}
        self.processes = [
            SimulatedProcess(self.world, self.broker, self.store, number=number, **makes)
            for number in range(rng.choice((2, 3)))
        ]
        endings = ODD_ENDINGS if shape.odd else ("",)
        make = partial(random_workflow, rng, plain=shape.plain, odd=shape.odd)
        self.workflows = {
            f"{seed}-{index}{rng.choice(endings)}": make(name=f"w{index}")
            for index in range(rng.choice((1, 2)))
        }
        self.people = SimulatedOperators(
            self.world, self.broker, self.store, self.workflows, **makes
        )
        self.witness = Witness(self.store, self.workflows)
        self._pace_ms = rng.choice((1, 1, 500, 3000))
        """Sleeps end at multiples of this, so that many processes meet in a saga."""
        self._memory: Memory | None = None
        """The content to which a server will be set back."""
        self._mail: list[Mail] = []
        self._remembered_ms = self._forgets_in = self._busy_ms = 0
        self._refused: SimulatedProcess | None = None
        """The process whose calls the server refuses; None: all of them."""
        self._answer = ""

    # ---- the scheduler ----

    def run(self) -> None:
        """Run the history and judge it.  Raises LawBroken."""
        try:
            self._run()
        finally:
            for process in (*self.processes, self.people):
                process.close()

    def _run(self) -> None:
        for _ in range(self.rng.randint(30, 500)):
            self._trouble()
            self._step()
        self._calm_down()
        for _ in range(CALM_STEPS):
            if not self._step() and self._at_rest():
                break
        else:
            raise LawBroken(f"no rest after {CALM_STEPS} steps: {self.store.due()}")
        due = self.store.due()
        for saga_id, workflow in self.workflows.items():
            self._judge(saga_id, workflow, due)
        self._judge_retention(due)

    def _calm_down(self) -> None:
        self.world.faults = self.broker.faults = NO_FAULTS
        self.world.is_picky = self._stays_picky
        self._memory = None
        self._busy_ms = 0
        for trouble in (self.store.away, self.store.refused, self.broker.refusing):
            trouble.clear()
        for process in (*self.processes, self.people):
            process.wake_ms = min(process.wake_ms, self.world.now_ms + 20_000)
        if self.shape.servers > 1 and self.rng.random() < 0.3:
            self._go_on_without(self.rng.randrange(self.shape.servers))
        elif len(self.workflows) > 1 and self.rng.random() < 0.5:
            self._go_on_beside(self.rng.choice(list(self.workflows)))

    def _go_on_without(self, server: int) -> None:
        """Only sagas of a server that stays away are concerned."""
        self.world.seen["sagas elsewhere went on"] += 1
        self.store.away[server] = self.world.now_ms + 10**9
        for _ in range(CALM_STEPS):
            if not self._step() and self._at_rest_without(server):
                break
        else:
            raise LawBroken(f"server {server} is away, but others do not rest: {self.store.due()}")
        self.store.away.clear()

    def _go_on_beside(self, refused: str) -> None:
        """If the server refuses a saga's calls or messages, no other saga is concerned."""
        self.world.seen["sagas beside a refused one went on"] += 1
        trouble = self.rng.choice((self.store.refused, self.broker.refusing))
        trouble[refused] = self.world.now_ms + 10**9
        for _ in range(CALM_STEPS):
            if not self._step() and self._at_rest_beside(refused):
                break
        else:
            raise LawBroken(f"{refused} is refused, but others do not rest: {self.store.due()}")
        trouble.clear()

    def _at_rest_beside(self, refused: str) -> bool:
        others = self.people.to_start - {refused}
        started = {saga for saga in others if self.store.has(saga)}
        lost = {saga for saga in others if self.store.was_set_back(saga)}
        due = (member for member in self.store.due() if member.split("|")[1] != refused)
        return others <= started | lost and all(member[0] == "x" for member in due)

    def _at_rest_without(self, server: int) -> bool:
        others = [n for n in range(self.shape.servers) if n != server]
        started = {saga for saga in self.workflows if self.store.has(saga)}
        to_start = self.people.to_start
        here = {saga for saga in to_start if self.store.server_of(saga) in others}
        lost = {saga for saga in here if self.store.was_set_back(saga)}
        return here <= started | lost and all(m[0] == "x" for m in self.store.due(others))

    def _trouble(self) -> None:
        """Let faults of whole servers strike."""
        world, faults = self.world, self.world.faults
        server = self.rng.randrange(len(self.store.clients)) if self.shape.servers > 1 else 0
        if world.happens(faults.outage, "server away"):
            self.store.away[server] = world.now_ms + self.rng.choice(OUTAGES_MS)
        self._refuse_something()
        if world.happens(faults.busy, "server does nothing for a while"):
            self._busy_ms = world.now_ms + self.rng.choice(OUTAGES_MS)
            self._refused = self.rng.choice((None, *self.processes))
            self._answer = self.rng.choice(NOTHING_DONE)
        if self.rng.random() < faults.clock_back and sweeps_go_on(world, self.store):
            self._remembered_ms -= BACK_MS
            self._busy_ms -= BACK_MS
            processes = (*self.processes, self.people)
            set_clock_back(BACK_MS, world, self.store, self.broker, processes)
        if self._memory is None and faults.set_back and self.rng.random() < faults.set_back:
            self._memory = self.store.remember(server)
            self._mail = list(self.broker.messages)
            self._remembered_ms = world.now_ms
            self._forgets_in = self.rng.randint(1, 80)
        elif self._memory is not None:
            self._forgets_in -= 1
            if world.now_ms - self._remembered_ms > FORGETS_MS:
                self._memory = None
            elif self._forgets_in <= 0:
                self._set_back(self._memory)

    def _refuse_something(self) -> None:
        """For a while a key has another type, or all calls about one saga fail."""
        world, faults = self.world, self.world.faults
        if world.happens(faults.refuse_push, "queue refuses messages"):
            until_ms = world.now_ms + self.rng.choice(REFUSALS_MS)
            self.broker.refusing[self.rng.choice((*QUEUES, *self.workflows))] = until_ms
        if world.happens(faults.refuse_saga, "saga refused"):
            until_ms = world.now_ms + self.rng.choice(REFUSALS_MS)
            self.store.refused[self.rng.choice(list(self.workflows))] = until_ms

    def _set_back(self, memory: Memory) -> None:
        """A server loses its writes since then, and may need a moment to restart."""
        self._memory = None
        self.world.seen["server set back"] += 1
        self.store.restore(memory)
        self.broker.stir()
        if self.shape.servers == 1 and self.rng.random() < 0.5:
            self.broker.messages[:] = self._mail  # the broker was on it, too
        self.store.away[memory.server] = self.world.now_ms + self.rng.choice((0, 0, 500, 5000))

    def _step(self) -> bool:
        """Move one thread on by one yield; False if only time passed."""
        world = self.world
        world.now_ms += self.rng.choice((0, 0, 1, 5))
        now_ms = world.now_ms
        mail = self.broker.waiting(now_ms) > 0
        able: list[tuple[SimulatedProcess, Thread]] = []
        wakes: list[int] = []
        for process in (*self.processes, self.people):
            if process.wake_ms > now_ms:
                wakes.append(process.wake_ms)
                continue
            if process.is_dead:
                process.start()
            for thread in process.threads:
                if not mail and type(thread.effect) is Take:
                    continue
                if thread.wake_ms > now_ms:
                    wakes.append(thread.wake_ms)
                else:
                    able.append((process, thread))
        if able:
            self._move(*self.rng.choice(able))
            return True
        later_ms = min(wakes, default=now_ms + 1000)
        if self._memory is not None and later_ms - self._remembered_ms > FORGETS_MS:
            self._set_back(self._memory)
        world.now_ms = later_ms
        return False

    def _move(self, process: SimulatedProcess, thread: Thread) -> None:
        if thread.effect is None and not self._resume(process, thread):
            return
        effect = thread.effect
        if isinstance(effect, Sleep):
            thread.wake_ms, thread.effect = self._later(effect.ms), None
        elif not isinstance(effect, Take) or self.broker.waiting(self.world.now_ms):
            self._carry_out(process, thread)

    def _later(self, ms: int) -> int:
        """The Unix ms at which a sleep of ``ms`` ends."""
        wake_ms = self.world.now_ms + ms
        return wake_ms + -wake_ms % self._pace_ms if ms else wake_ms

    def _resume(self, process: SimulatedProcess, thread: Thread) -> bool:
        """Run the thread to its next yield; False at its end."""
        reply, error = thread.reply, thread.error
        thread.reply = thread.error = None
        try:
            thread.effect = thread.life.send(reply) if error is None else thread.life.throw(error)
        except StopIteration:
            process.threads.remove(thread)
            return False
        return True

    def _carry_out(self, process: SimulatedProcess, thread: Thread) -> None:
        """Perform the thread's effect, and let faults strike."""
        world, faults = self.world, self.world.faults
        if world.happens(faults.die_before, "died before a call"):
            return process.die()
        if world.happens(faults.freeze, "froze"):
            process.wake_ms = self._later(self.rng.choice((1000, 9000, 60_000)))
            return None
        effect, thread.effect = thread.effect, None
        is_call = isinstance(effect, Call | Plain)
        if is_call and world.happens(faults.fail_before, "call failed"):
            thread.error = UNREACHABLE[0]("injected: not sent")
            return None
        if is_call and self._does_nothing(process):
            world.seen["call that a server refused"] += 1
            thread.error = refusal("redis://simulated", ResponseError(self._answer))
            return None
        try:
            thread.reply = self._perform(effect)
        except (Unsendable, NotTaken) as error:
            thread.error = error
        except UNREACHABLE as error:
            thread.error = error
            world.seen["call to a server that is away"] += 1
            return None
        except StoreError as error:
            thread.error = error
            world.seen["call about a saga that is refused"] += 1
            return None
        if is_call and world.happens(faults.reply_lost, "reply lost"):
            if self.rng.random() < 0.7:
                thread.reply = self._perform(effect)
            else:
                thread.reply, thread.error = None, UNREACHABLE[0]("injected: no reply")
        if world.happens(faults.die_after, "died after a call"):
            process.die()
        return None

    def _does_nothing(self, process: SimulatedProcess) -> bool:
        return self._busy_ms > self.world.now_ms and self._refused in (None, process)

    def _perform(self, effect: Any) -> Any:
        now_ms = self.world.now_ms
        if isinstance(effect, Call | Plain):
            reply = self.store.execute(effect, now_ms)
            self.witness.called(effect, reply)
            if isinstance(effect, Call) and effect.script == "sweep":
                judge_sweep(self.store, effect, now_ms)
            if isinstance(effect, Call) and effect.script in SENDING:
                self.broker.stir()
            return reply
        if isinstance(effect, Publish):
            self.witness.publishes(effect)
        elif isinstance(effect, QueueHead) and self.shape.letters and self.store.is_away(0, now_ms):
            raise UNREACHABLE[0]("injected: the broker is away")
        return carry_out(effect, self.world, self.broker)

    # ---- the end ----

    def _at_rest(self) -> bool:
        """Whether only the ends of retentions remain."""
        idle = all(process.threads and process.is_idle for process in self.processes)
        if not idle or self.people.is_dead or self.people.threads or not self.broker.is_empty:
            return False
        return all(member.startswith("x|") for member in self.store.due())

    def _judge(self, saga_id: str, workflow: Workflow, due: list[str]) -> None:
        set_back = self.store.was_set_back(saga_id)
        if not self.store.has(saga_id):
            self._judge_absent(saga_id, set_back)
            return
        saga, log = stored(self.store, workflow, saga_id)
        judge_end(workflow, saga, log, self.world.ledger[saga_id], set_back=set_back)
        judge_store(self.store, saga, log, due)
        judge_ends(self.world, saga, set_back=set_back)
        if not set_back:
            judge_starts(self.store, saga_id, self.world.owed[saga_id])
            judge_reports(log, self.world.reports[saga_id])
            judge_given(self.store, workflow, saga, log, self.world.begun[saga_id])
            judge_canvases(self.world, saga, log)
        self.world.seen[f"~{saga.state}"] += 1
        self.world.seen["logs compressed"] += is_compressed(self.store, self.store.keys(saga_id))

    def _judge_absent(self, saga_id: str, set_back: bool) -> None:
        """A saga is stored as a whole or not at all."""
        left = left_of(self.store, saga_id)
        law(not left, f"{saga_id} is not stored, but these remain: {left}")
        law(set_back or not self.world.owed[saga_id], f"{saga_id} was started, but is gone")
        self.world.seen["~lost with its server's last second" if set_back else "~not started"] += 1

    def _judge_retention(self, due: list[str]) -> None:
        """When retention is over, nothing is left of what has ended (E16)."""
        purged = [member.partition("|")[2] for member in due]
        self.world.now_ms += round(RETENTION_S * 1000) + BACK_MS
        for _ in range(CALM_STEPS):
            if not self._step() and not self.store.due():
                break
        else:
            raise LawBroken(f"retention does not end: {self.store.due()}")
        for saga_id in purged:
            left = left_of(self.store, saga_id)
            law(not left, f"{saga_id}: its retention is over, but these remain: {left}")
        judge_definitions(self.store)
