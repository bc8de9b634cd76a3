"""Does the sweeper finish the work of lost processes, and nothing more?"""

from __future__ import annotations

from typing import Any

import pytest

from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.clock import FakeClock
from multiagents.core.entries import Requested, Succeeded
from multiagents.core.ports import WorkerInfo
from multiagents.core.settings import Settings
from multiagents.core.states import Action, Kind, SagaState, StepState
from multiagents.engine.catalog import Catalog
from multiagents.engine.composition import compose
from multiagents.engine.queue_heads import Backlog, QueueHead
from multiagents.engine.resender import LATER
from multiagents.engine.sweeper import Sweeper
from multiagents.saga.outcome import SagaOutcome
from multiagents.saga.targets import Told
from multiagents.storage import sagas as store
from multiagents.storage.client import Edge
from multiagents.storage.keys import Shard
from multiagents.workflows.step import Step
from multiagents.workflows.workflow import Workflow

FLOW = Workflow(
    name="pair",
    steps=(Step(name="a", worker="w"), Step(name="b", worker="w", depends_on=("a",))),
)


class World:
    """One coordinator and one sweeper over a real server; the broker is a list."""

    def __init__(self, redis_url: str) -> None:
        self.clock = FakeClock()
        self.settings = Settings(redis_url=redis_url, retention_s=60)
        self.catalog = Catalog(self.clock)
        self.catalog.add_local(WorkerInfo("w"))
        self.edge = Edge(redis_url, perform=self.perform)
        self.coordinator = compose(settings=self.settings, clock=self.clock, directory=self.catalog)
        self.unknown: set[str] = set()
        self.sweeper = Sweeper(
            self.coordinator,
            has_no_worker=lambda name: name in self.unknown,
            clock_ms=self.clock.now_ms,
        )
        self.sent: list[Any] = []
        self.ended: list[Any] = []
        self.broker_is_up = True
        self.backlog = Backlog(0)
        self.looks = 0

    def perform(self, effect: Any) -> Any:
        if isinstance(effect, QueueHead):
            self.looks += 1
            return self.backlog
        if isinstance(effect, SagaOutcome):
            if self.broker_is_up:
                self.ended.append(effect)
            return Told(self.broker_is_up)
        if self.broker_is_up:
            self.sent.extend(effect.messages)
        return self.broker_is_up

    def start(self, saga_id: str = "s1") -> None:
        flow = self.coordinator.start(
            FLOW, saga_id=saga_id, waiting=(saga_id, ""), data={"input": "{}", "meta": "{}"}
        )
        self.edge.run(flow)

    def sweep(self, seconds: float = 0) -> None:
        """Let time pass in small steps, with a sweep at each."""
        for _ in range(max(1, round(seconds))):
            self.clock.advance(1 if seconds else 0)
            for item in self.edge.run(self.sweeper.due(Shard())):
                self.edge.run(self.sweeper.handle(item))

    def do(self, step: str, *, saga_id: str = "s1", attempt: int = 1) -> None:
        """Claim an attempt and report its success."""
        held = self.edge.run(
            self.coordinator.slots.claim(
                saga_id, AttemptRef(Kind.RUN, step, attempt), delivery="d", queue="io"
            )
        )
        assert held is not None
        done = Succeeded(self.clock.now_ms(), Kind.RUN, step, attempt, held.nonce)
        self.edge.run(self.coordinator.report(saga_id, done, result="{}"))

    def saga(self, saga_id: str = "s1"):
        return self.edge.run(self.coordinator.repository.current(saga_id))[0]


@pytest.fixture
def world(redis_url: str):
    made = World(redis_url)
    made.sweep()
    yield made
    made.edge.close()


def test_a_command_whose_sending_failed_is_sent_by_a_sweep(world):
    """An outage of the broker at the start delays a saga by 2 s."""
    world.broker_is_up = False
    world.start()
    world.broker_is_up = True
    world.sweep(1)
    assert world.sent == []
    world.sweep(3)
    assert [message.step for message in world.sent] == ["a"]


def test_a_lost_message_is_sent_again_when_its_queue_is_empty(world):
    """After one unclaimed lease the same attempt is resent."""
    world.start()
    world.sweep(14)
    assert len(world.sent) == 1
    world.sweep(4)
    assert [(m.step, m.attempt) for m in world.sent] == [("a", 1), ("a", 1)]


def test_a_command_behind_a_backlog_is_not_sent_again(world):
    """E10: a queue with an older head may still hold the message."""
    world.start()
    world.backlog = Backlog(10_000, head_sent_ms=world.sent[0].sent_ms - 1)
    world.sweep(300)
    assert len(world.sent) == 1
    world.backlog = Backlog(9_000, head_sent_ms=world.sent[0].sent_ms + 1)
    world.sweep(300 // LATER)
    assert len(world.sent) == 2


def test_a_long_queue_is_looked_into_for_all_that_waits_in_it(world):
    """E10: sweepers look once a second per queue, not once per message."""
    for number in range(50):
        world.start(f"s{number}")
    world.backlog = Backlog(50, head_sent_ms=world.sent[0].sent_ms)
    world.sweep(20)
    assert 1 <= world.looks <= 2
    assert len(world.sent) == 50


def test_what_has_waited_long_is_looked_for_less_often(world):
    """E10: in an hour behind a backlog a command is due about 20 times, not 240."""
    world.start()
    world.backlog = Backlog(10_000, head_sent_ms=world.sent[0].sent_ms)
    world.sweep(3600)
    assert 10 <= world.looks <= 24


def test_behind_an_unknown_head_re_sending_gets_rarer(world):
    """E10: behind a foreign head the wait doubles each time and stays finite."""
    world.start()
    world.backlog = Backlog(5, head_sent_ms=None)
    world.sweep(600)
    assert 2 <= len(world.sent) <= 7


def test_a_claimed_command_is_never_sent_again(world):
    """The claim takes it out of the outbox."""
    world.start()
    world.edge.run(
        world.coordinator.slots.claim("s1", AttemptRef(Kind.RUN, "a", 1), delivery="d", queue="io")
    )
    world.sweep(14)
    assert len(world.sent) == 1


def test_a_lease_that_runs_out_is_a_failed_attempt(world):
    """The attempt is fenced and, by the default policy, retried."""
    world.start()
    world.edge.run(
        world.coordinator.slots.claim("s1", AttemptRef(Kind.RUN, "a", 1), delivery="d", queue="io")
    )
    world.sweep(20)
    assert [(m.step, m.attempt) for m in world.sent] == [("a", 1), ("a", 2)]
    assert world.saga().steps["a"].lost[0][1] == 1


def test_an_entry_that_nobody_decided_over_is_decided_by_a_sweep(world):
    """E1: the process died between append and commit."""
    world.start()
    keys = world.coordinator.repository.keys("s1")
    asked = Requested(world.clock.now_ms(), Action.PAUSE, "r1")
    world.edge.execute(store.append(keys, asked))
    world.sweep(3)
    view = world.edge.execute(store.load(keys))
    assert view.entries == ()
    assert world.saga().state is SagaState.PAUSED


def test_an_outcome_that_could_not_be_delivered_is_delivered_by_a_sweep(world):
    """Rule 14: the store of the result is repeated until it succeeds."""
    world.start()
    world.do("a")
    world.broker_is_up = False
    world.do("b")
    assert world.ended == []
    world.broker_is_up = True
    world.sweep(4)
    assert [outcome.state for outcome in world.ended] == ["completed"]
    world.sweep(10)
    assert len(world.ended) == 1


def test_a_command_for_a_worker_that_is_gone_is_parked(world):
    """Rule 9: after some unclaimed messages, if no running worker has its function."""
    world.start()
    world.sweep(120)
    assert world.saga().steps["a"].run.state is StepState.DISPATCHED
    world.unknown.add("w")
    world.sweep(40)
    saga = world.saga()
    assert saga.steps["a"].run.state is StepState.PARKED
    assert saga.state is SagaState.RUNNING
    assert "deploy it" in saga.steps["a"].run.error.message


def test_a_finished_saga_is_purged_and_nothing_is_left(world):
    """E16: state, log, data and indexes go together after the retention."""
    world.start()
    world.do("a")
    world.do("b")
    world.sweep(50)
    assert world.saga().state is SagaState.COMPLETED
    world.sweep(20)
    world.sweep(20)
    left = {key.decode() for key in world.edge.client.keys("*")}
    assert left == {Shard().tick}
