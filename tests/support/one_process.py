"""How do tests drive one engine process, call by call, over a real server?"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.clock import FakeClock
from multiagents.core.effects import Flow
from multiagents.core.entries import Entry, Failed, Failure, Lost, Requested, Succeeded, decode
from multiagents.core.ports import Assignment, WorkerInfo
from multiagents.core.settings import Settings
from multiagents.core.states import Action, Kind
from multiagents.engine.catalog import Catalog
from multiagents.engine.claims import Continuation
from multiagents.engine.composition import compose
from multiagents.engine.coordinator import Coordinator
from multiagents.engine.messages import LetterOf, Message, Publish, no_letter
from multiagents.engine.queue_heads import Backlog, QueueHead
from multiagents.engine.sweeper import Sweeper
from multiagents.saga.outcome import SagaOutcome
from multiagents.saga.state import Saga
from multiagents.saga.targets import NOT_TOLD, TOLD
from multiagents.storage import sagas as store
from multiagents.storage.calls import Call, Plain
from multiagents.storage.client import Edge, StoreError
from multiagents.storage.keys import SagaKeys, Shard, due_lease
from multiagents.workflows.step import Step
from multiagents.workflows.workflow import Workflow

T = TypeVar("T")

SAGA = "saga"
SHARD = Shard(0)
KEYS = SagaKeys(SAGA)


class Bench:
    """One process over one server; it records what it sends and delivers."""

    def __init__(self, url: str, letter_of: LetterOf = no_letter) -> None:
        self.clock = FakeClock()
        self.settings = Settings(redis_url=url, retention_s=100)
        self.sent: list[Message] = []
        self.ends: list[str] = []
        self.results: list[dict[str, Any] | None] = []
        self.told: list[dict[str, Any]] = []
        """The waiters that each of these ends was delivered to, with the canvas started for it."""
        self.delivers = True
        self.twice = self.lose = ""
        self.edge = _Repeating(url, self)
        self.catalog = Catalog(self.clock)
        for name in ("a", "undo"):
            self.catalog.add_local(WorkerInfo(name))
        self.coordinator = compose(
            settings=self.settings,
            clock=self.clock,
            directory=self.catalog,
            letter_of=letter_of,
        )

    def perform(self, effect: Any) -> Any:
        match effect:
            case Publish(messages):
                self.sent.extend(messages)
                return True
            case SagaOutcome():
                if self.delivers:
                    self.ends.append(effect.state)
                    self.results.append(effect.result)
                    self.told.append(effect.waiting)
                return TOLD if self.delivers else NOT_TOLD
            case QueueHead():
                return Backlog(0)
        raise TypeError(effect)

    def start(self, *steps: Step, data: dict[str, Any] | None = None, **options: Any) -> None:
        """Start a saga of these steps.  ``options``: of its workflow."""
        given = {"input": json.dumps(data or {}), "meta": "{}"}
        workflow = Workflow(name="w", steps=steps, **options)
        flow = self.coordinator.start(workflow, saga_id=SAGA, waiting=(SAGA, ""), data=given)
        self.edge.run(flow)

    def announce(self, slots: int) -> None:
        """Announce a worker of the queue ``io`` with that many slots."""
        self.edge.run(self.catalog.publish("w@host", ["io"], [], slots=slots))

    def claim(self) -> Assignment:
        return self._claim(self.sent.pop(0).ref)

    def take_engine(self, step: str) -> Assignment:
        """Claim the first attempt of a step whose message is in a list of the server."""
        self.edge.client.delete("queue")
        return self._claim(AttemptRef(Kind.RUN, step, 1))

    def _claim(self, ref: AttemptRef) -> Assignment:
        flow = self.coordinator.slots.claim(SAGA, ref, delivery="d", queue="io")
        held = self.edge.run(flow)
        assert held is not None
        return held

    def succeed(
        self, held: Assignment, result: str = "{}", *, allowed: bool = True
    ) -> Assignment | None:
        return self.edge.run(self.report_of(held, result, allowed=allowed))

    def report_of(
        self, held: Assignment, result: str = "{}", *, allowed: bool = True
    ) -> Flow[Assignment | None]:
        """The flow that reports a success and continues."""
        entry = Succeeded(self.clock.now_ms(), *row(held))
        go_on = Continuation("io", "d", held, result, allowed)
        return self.coordinator.report(SAGA, entry, result=result, go_on=go_on)

    def fail(
        self, held: Assignment, *, retryable: bool = False, go_on: bool = False
    ) -> Assignment | None:
        entry = Failed(self.clock.now_ms(), *row(held), Failure("E", "e"), retryable=retryable)
        slot = Continuation("io", "d", held) if go_on else None
        return self.edge.run(self.coordinator.report(SAGA, entry, go_on=slot))

    def ask(self, command: Action, step: str = "") -> None:
        entry = Requested(self.clock.now_ms(), command, f"{command}", step=step)
        self.edge.run(self.coordinator.append(SAGA, entry))

    def sweep(self) -> None:
        sweeper = self.sweeper()
        for item in self.edge.run(sweeper.due(SHARD)):
            self.edge.run(sweeper.handle(item))

    def sweeper(self) -> Sweeper:
        """A sweeper without memory."""
        return Sweeper(
            self.coordinator, has_no_worker=lambda name: False, clock_ms=self.clock.now_ms
        )

    def beside(self) -> Bench:
        """Another process over the same store; both record what they send and deliver together."""
        other = Bench(self.settings.redis_url)
        other.clock = other.coordinator.clock = other.coordinator.claims.clock = self.clock
        other.sent, other.ends, other.told = self.sent, self.ends, self.told
        return other

    def interrupted(
        self, flow: Flow[T], script: str, meanwhile: Callable[[], Any], *, before: int = 1
    ) -> T:
        """Run a flow; another action happens just before this call of that script, 1-based."""
        reply, error, calls = None, None, 0
        while True:
            try:
                effect = flow.send(reply) if error is None else flow.throw(error)
            except StopIteration as stop:
                found: T = stop.value
                return found
            if isinstance(effect, Call) and effect.script == script:
                calls += 1
                if calls == before:
                    meanwhile()
            reply, error = None, None
            try:
                reply = self.edge.execute(effect)
            except StoreError as refused:
                error = refused

    def forget(self) -> None:
        """Forget all sagas, as a new process would."""
        self.coordinator.repository.snapshots._snapshots.clear()

    def log(self) -> list[Entry]:
        return [decode(text) for text in self.edge.execute(store.log(KEYS))]

    def work(self) -> dict[str, str]:
        return self.edge.execute(store.work(KEYS))

    def saga(self) -> Saga:
        """The saga as it is now."""
        return self.edge.run(self.coordinator.repository.current(SAGA))[0]

    def due(self) -> list[str]:
        return [member.decode() for member in self.edge.client.zrange(SHARD.due, 0, -1)]


def step(name: str, *after: str, **options: Any) -> Step:
    """A step of the bench's worker."""
    return Step(name=name, worker="a", depends_on=after, **options)


def undoable(name: str, *after: str, **options: Any) -> Step:
    """The same step with a compensation."""
    return step(name, *after, compensation="undo", **options)


def row(held: Assignment) -> tuple[Kind, str, int, str]:
    """The first fields of an entry about an attempt, after its time."""
    return *held.ref, held.nonce


def lose(edge: Any, coordinator: Coordinator, held: Assignment) -> None:
    """Let its lease expire and a sweep notice it, which ends the claim."""
    keys = coordinator.repository.keys(held.saga_id)
    member = due_lease(held.saga_id, held.ref, held.nonce)
    score = edge.execute(Plain(("ZSCORE", keys.due, member), float))
    lost = Lost(coordinator.clock.now_ms(), *row(held))
    guard = store.Guard(member, f"{score:.0f}")
    assert edge.run(coordinator.append(held.saga_id, lost, guard=guard))


def chain(count: int, **options: Any) -> list[Step]:
    """Steps ``s0``, ``s1`` and so on, each after the one before."""
    return [step(f"s{n}", *((f"s{n - 1}",) if n else ()), **options) for n in range(count)]


class _Repeating(Edge):
    """Sends calls of the script ``bench.twice`` twice, as after a lost reply.

    It never sends those of ``bench.lose``.
    """

    def __init__(self, url: str, bench: Bench) -> None:
        super().__init__(url, perform=bench.perform)
        self._bench = bench

    def execute(self, effect: Any) -> Any:
        script = effect.script if isinstance(effect, Call) else ""
        if script and script == self._bench.lose:
            raise ConnectionError(script)
        if script and script == self._bench.twice:
            super().execute(effect)
        return super().execute(effect)
