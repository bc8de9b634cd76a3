"""Of what is the simulated system made?

A broker that loses, doubles and reorders messages; processes that die, freeze and come back; and
faults at every single call.  What runs in a process are the engine's own flows: a thread here is
a generator that yields Redis calls and effects, and is moved on by one of them at a time.

No wall clock: time is the world's, and each process sees it a few seconds off.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

from multiagents.core.entries import Failed, Failure, Report, Succeeded
from multiagents.core.exceptions import UnknownSaga
from multiagents.core.policies import RetryPolicy
from multiagents.core.ports import Assignment, WorkerInfo
from multiagents.core.settings import Settings
from multiagents.core.states import Outcome
from multiagents.orchestrator.catalog import Catalog
from multiagents.orchestrator.claims import Continuation
from multiagents.orchestrator.coordinator import Coordinator
from multiagents.orchestrator.outbox import Deliverance, Message, Publish
from multiagents.orchestrator.sweeper import Backlog, QueueHead, Sweeper
from multiagents.storage import sagas as store
from multiagents.storage.calls import Flow, ask
from multiagents.storage.client import UNREACHABLE
from multiagents.storage.keys import Shard
from multiagents.testing.laws import Effect

LEASE_S = 6.0
SKEW_MS = 2500
SLOTS = 2
"""Messages that a worker process deals with at once."""
RESULT_TEXT = '{"ok":true}'
WORKERS = (
    WorkerInfo("a"),
    WorkerInfo("b", timeout_s=4.0),
    WorkerInfo("c", queue="llm", retry=RetryPolicy(max_attempts=2, backoff_s=0.5)),
    WorkerInfo("undo_a"),
    WorkerInfo("undo_b", queue="llm"),
)

Life = Generator[Any, Any, None]


@dataclass(frozen=True, slots=True)
class Faults:
    """How often something goes wrong at a yield; each is a probability."""

    die_before: float = 0.004
    die_after: float = 0.006
    fail_before: float = 0.01
    reply_lost: float = 0.02
    freeze: float = 0.004
    lose_message: float = 0.04
    double_message: float = 0.06
    lose_all_messages: float = 0.002


NO_FAULTS = Faults(0, 0, 0, 0, 0, 0, 0, 0)


def some_faults(rng: Random) -> Faults:
    """Faults of which some never strike and some often: they hide each other otherwise."""
    usual = asdict(Faults())
    return Faults(**{name: share * rng.choice((0, 1, 1, 5)) for name, share in usual.items()})


@dataclass(frozen=True, slots=True)
class Sleep:
    """Effect: nothing for this long."""

    ms: int


@dataclass(frozen=True, slots=True)
class Take:
    """Effect: the next message, when there is one."""


class Broker:
    """Where messages wait."""

    def __init__(self, rng: Random, seen: Counter[str]) -> None:
        self.faults = Faults()
        self.messages: list[Message | str] = []
        self._rng, self._seen = rng, seen

    def publish(self, messages: tuple[Message, ...]) -> bool:
        """Take messages, some never and some twice; whether to say so."""
        for message in messages:
            self.put(message)
        return self._rng.random() >= self.faults.fail_before

    def put(self, message: Message | str) -> None:
        """Take one message; a str is the id of a saga to decide over."""
        if self._happens(self.faults.lose_message, "message lost"):
            return
        self.messages.append(message)
        if self._happens(self.faults.double_message, "message doubled"):
            self.messages.append(message)
        if self._happens(self.faults.lose_all_messages, "all messages lost"):
            self.messages.clear()

    def take(self) -> Message | str:
        """Any of the messages."""
        return self.messages.pop(self._rng.randrange(len(self.messages)))

    def backlog(self, queue: str) -> Backlog:
        """What a queue holds; some brokers cannot say."""
        if self._rng.random() < 0.2:
            return Backlog(None)
        found = [m.sent_ms for m in self.messages if isinstance(m, Message) and m.queue == queue]
        return Backlog(len(found), min(found, default=None))

    def _happens(self, probability: float, what: str) -> bool:
        if self._rng.random() >= probability:
            return False
        self._seen[what] += 1
        return True


@dataclass(eq=False, slots=True)
class Thread:
    """One flow of a process, between two of its yields."""

    life: Life
    wake_ms: int = 0
    effect: Any = None
    """Yielded, but not carried out: its process froze, or there is no message to take."""
    reply: Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class World:
    """What all processes share."""

    rng: Random
    settings: Settings
    now_ms: int = 1_700_000_000_000
    faults: Faults = field(default_factory=Faults)
    wide: int = 20
    """Sagas with more steps are caught up with by their log."""
    skill: float = 0.8
    """How often a worker succeeds."""
    seen: Counter[str] = field(default_factory=Counter)
    """What was injected, by name."""
    ledger: dict[str, dict[str, list[Effect]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    """By saga and step: what was really done."""
    ends: dict[str, list[Deliverance]] = field(default_factory=lambda: defaultdict(list))

    def nonce(self) -> str:
        """As `ids.nonce`, from the seed."""
        return f"{self.rng.getrandbits(64):016x}"

    def happens(self, probability: float, what: str) -> bool:
        """Whether a fault strikes now; counted if it does."""
        if probability <= 0 or self.rng.random() >= probability:
            return False
        self.seen[what] += 1
        return True


@dataclass(slots=True)
class ProcessClock:
    """The world's time as one process sees it."""

    world: World
    skew_ms: int

    def now_ms(self) -> int:
        return self.world.now_ms + self.skew_ms


MakeCoordinator = Callable[..., Coordinator]
MakeSweeper = Callable[..., Sweeper]


class Process:
    """A worker process: message slots, a heartbeat and a sweeper, over one coordinator."""

    def __init__(
        self,
        world: World,
        broker: Broker,
        *,
        make_coordinator: MakeCoordinator = Coordinator,
        make_sweeper: MakeSweeper = Sweeper,
    ) -> None:
        self.world, self.broker = world, broker
        self._make = make_coordinator, make_sweeper
        self.wake_ms = 0
        """Dead or frozen until then."""
        self.threads: list[Thread] = []
        self.held: dict[str, Assignment] = {}
        self._cancelled: set[str] = set()
        self.start()

    def start(self) -> None:
        """Begin with nothing remembered."""
        world, rng = self.world, self.world.rng
        make_coordinator, make_sweeper = self._make
        self.clock = ProcessClock(world, rng.randint(-SKEW_MS, SKEW_MS))
        catalog = Catalog(self.clock)
        for info in WORKERS:
            catalog.add_local(info)
        self.coordinator = make_coordinator(
            settings=world.settings,
            clock=self.clock,
            directory=catalog,
            nonce=world.nonce,
            wide=world.wide,
        )
        sweeper = make_sweeper(
            self.coordinator, nobody_knows=self._nobody_knows, clock_ms=self.clock.now_ms
        )
        self.held, self._cancelled = {}, set()
        lives = [self._work() for _ in range(SLOTS)]
        self.threads = [Thread(life) for life in (*lives, self._beat(), self._sweep(sweeper))]

    @property
    def is_idle(self) -> bool:
        """Whether all its message slots wait for one."""
        return all(isinstance(thread.effect, Take) for thread in self.threads[:SLOTS])

    def die(self) -> None:
        """Forget everything; another takes its place after a while."""
        for thread in self.threads:
            thread.life.close()
        self.threads = []
        self.held = {}
        self.wake_ms = self.world.now_ms + self.world.rng.randint(100, 8000)

    def _nobody_knows(self, name: str) -> bool:
        return self.world.happens(self.world.faults.freeze * 20, "worker unknown")

    # ---- the three kinds of threads ----

    def _work(self) -> Life:
        while True:
            message = yield Take()
            try:
                if isinstance(message, str):
                    yield from self.coordinator.coordinate(message)
                else:
                    yield from self._deal_with(message)
            except UNREACHABLE:
                self.world.seen["message given up"] += 1

    def _deal_with(self, message: Message) -> Life:
        delivery = f"{message.step}{self.world.rng.random()}"
        held = yield from self.coordinator.claim(
            message.saga_id,
            message.kind,
            message.step,
            message.attempt,
            delivery=delivery,
            queue=message.queue,
            version=message.version if self.world.rng.random() < 0.8 else "",
        )
        while held is not None:
            held = yield from self._perform(held, message.queue, delivery)

    def _perform(self, held: Assignment, queue: str, delivery: str) -> Flow[Assignment | None]:
        """Do the work and report it; perhaps the next attempt."""
        rng = self.world.rng
        self.held[held.nonce] = held
        try:
            yield Sleep(rng.choice((0, 0, 50, 500, 3000, 9000)))
            if held.nonce in self._cancelled and rng.random() < 0.5:
                return None
            if self._overruns(held):
                row = (held.kind, held.step, held.attempt, held.nonce)
                error = Failure("StepTimeout", "overrun")
                given_up = Failed(self.clock.now_ms(), *row, error, running=True)
                yield from self._report(held, given_up, queue, "")
            entry = self._outcome(held)
            if isinstance(entry, Succeeded) or (
                rng.random() < 0.5 and entry.outcome != "failed_clean"
            ):
                effect = Effect(held.kind, held.nonce)
                self.world.ledger[held.saga_id][held.step].append(effect)
            yield Sleep(rng.choice((0, 0, 0, 2000)))
            return (yield from self._report(held, entry, queue, delivery))
        finally:
            self.held.pop(held.nonce, None)

    def _overruns(self, held: Assignment) -> bool:
        """Whether its process gives it up for overrunning its time-out, and cannot stop it."""
        late = 0 < held.deadline_ms < self.clock.now_ms()
        return late and self.world.rng.random() < 0.5

    def _outcome(self, held: Assignment) -> Succeeded | Failed:
        rng, calm = self.world.rng, self.world.faults == NO_FAULTS
        row = (self.clock.now_ms(), held.kind, held.step, held.attempt, held.nonce)
        if rng.random() < max(self.world.skill, 0.95 if calm else 0):
            return Succeeded(*row)
        return Failed(
            *row,
            Failure("Boom", "boom"),
            outcome=rng.choice((Outcome.UNKNOWN, Outcome.UNKNOWN, Outcome.CLEAN)),
            retryable=rng.random() < 0.6,
            retry_after_ms=rng.choice((None, None, 0, 3000)),
        )

    def _report(
        self, held: Assignment, entry: Report, queue: str, delivery: str
    ) -> Flow[Assignment | None]:
        """As a worker does: again while the server is away, until it gives up."""
        rng = self.world.rng
        result = RESULT_TEXT if isinstance(entry, Succeeded) else None
        goes_on = bool(delivery) and rng.random() < 0.8
        go_on = Continuation(queue, delivery, held, result) if goes_on else None
        while True:
            try:
                if rng.random() < 0.1:
                    keys = self.coordinator.keys(held.saga_id)
                    yield from ask(store.report(keys, entry, result=result))
                    self.broker.put(held.saga_id)
                    return None
                return (
                    yield from self.coordinator.report(
                        held.saga_id, entry, result=result, go_on=go_on
                    )
                )
            except UNREACHABLE:
                if rng.random() < 0.3:
                    return None
            yield Sleep(200)

    def _beat(self) -> Life:
        while True:
            yield Sleep(round(LEASE_S * 1000 / 3))
            for held in list(self.held.values()):
                try:
                    renewed = yield self.coordinator.renewal(held, {})
                except UNREACHABLE:
                    continue
                if not renewed:
                    self._cancelled.add(held.nonce)
                    self.held.pop(held.nonce, None)

    def _sweep(self, sweeper: Sweeper) -> Life:
        while True:
            yield Sleep(self.world.rng.randint(300, 1500))
            try:
                for item in (yield from sweeper.due(Shard(0))):
                    yield from sweeper.handle(item)
            except UNREACHABLE:
                self.world.seen["sweep broken off"] += 1
            except UnknownSaga:
                self.world.seen["sweep of a saga that is gone"] += 1


def carry_out(effect: Any, world: World, broker: Broker) -> Any:
    """Carry out what is not Redis'."""
    match effect:
        case Take():
            return broker.take()
        case Publish(messages):
            return broker.publish(messages)
        case QueueHead(queue):
            return broker.backlog(queue)
        case Deliverance(saga_id):
            world.ends[saga_id].append(effect)
            return not world.happens(world.faults.fail_before, "delivery failed")
    raise TypeError(f"the simulator does not know {effect!r}")
