"""What happens to a command whose message reaches a worker without its function?"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from celery import Celery
from kombu import Queue
from structlog.testing import capture_logs

from multiagents.core.ports import WorkerInfo
from multiagents.core.states import Kind, StepState
from multiagents.engine.catalog import Catalog
from multiagents.engine.handback import LATER_MS, SPACE_MS, Foreign, HandBack, foreign_of
from multiagents.engine.messages import Message
from multiagents.engine.resender import UNROUTABLE_AFTER
from multiagents.engine.sweeper import Sweeper
from multiagents.hosting.sweeper_thread import SweeperThread
from multiagents.hosting.unknown_tasks import Strategies
from multiagents.workflows.workflow import Workflow
from tests.support.one_process import KEYS, SAGA, SHARD, Bench, step, undoable
from tests.support.processes import wait_for

NOW = 0.001
"""Seconds."""


class Stranger(Bench):
    """A worker without the functions of the saga's steps; others may have them."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.empty = Catalog(self.clock)
        self.desk = HandBack(self.settings, self.clock, self.empty)
        self._look = Sweeper(
            self.coordinator,
            has_no_worker=self.empty.has_no_worker,
            clock_ms=self.clock.now_ms,
            refresh=lambda: self.empty.refresh(force=True),
        )
        self.run(self.empty.publish("stranger@h", ["io"], []))
        self.pass_time(0)

    def run(self, flow: Any) -> Any:
        return self.edge.run(flow)

    def colleague(self, *functions: str, queue: str = "io", host: str = "other@h") -> HandBack:
        """Announce another worker that has these functions."""
        catalog = Catalog(self.clock)
        for name in functions:
            catalog.add_local(WorkerInfo(name))
        self.run(catalog.publish(host, [queue], []))
        return HandBack(self.settings, self.clock, catalog)

    def give(self, message: Message) -> list[Foreign]:
        """A message arrives here."""
        row = (message.saga_id, *message.ref, message.sent_ms)
        self.run(self.empty.refresh(force=True))
        left: list[Foreign] = self.run(
            self.desk.hand_back([Foreign(*row, message.task, message.queue)])
        )
        return left

    def pass_time(self, seconds: float, *, steps: int = 1) -> None:
        """Let time pass, with sweeps."""
        for _ in range(steps):
            self.clock.advance(seconds / steps)
            for item in self.run(self._look.due(SHARD)):
                self.run(self._look.handle(item))
        self.run(self.empty.publish("stranger@h", ["io"], []))

    def due_in_ms(self, kind: Kind = Kind.RUN, name: str = "one", attempt: int = 1) -> int:
        """The time until the command's next look."""
        score = self.edge.client.zscore(SHARD.due, f"o|{SAGA}|o:{kind}:{name}:{attempt}")
        return round(score) - self.clock.now_ms()


@pytest.fixture
def bench(redis_url: str) -> Iterator[Stranger]:
    made = Stranger(redis_url)
    yield made
    made.edge.close()


def test_a_command_goes_on_at_once_where_a_worker_has_its_function(bench: Stranger) -> None:
    """The same attempt is resent within a fraction of a second, not after a lease."""
    bench.colleague("a")
    bench.start(step("one"))
    bench.give(bench.sent[0])
    bench.pass_time(0.05)
    assert [(each.step, each.attempt) for each in bench.sent] == [("one", 1), ("one", 1)]


def test_an_undo_goes_on_at_once_too(bench: Stranger) -> None:
    """Runs and undos follow one rule."""
    bench.colleague("a", "undo")
    bench.start(undoable("one"), step("two", "one"))
    bench.succeed(bench.claim(), allowed=False)
    bench.fail(bench.claim())
    (undo,) = bench.sent
    assert undo.kind is Kind.UNDO
    bench.give(undo)
    bench.pass_time(0.05)
    assert [each.kind for each in bench.sent] == [Kind.UNDO, Kind.UNDO]


def test_what_is_claimed_is_not_given_back(bench: Stranger) -> None:
    """The command was sent twice, and its other message is running (E3)."""
    bench.colleague("a")
    bench.start(step("one"))
    message = bench.sent[0]
    held = bench.claim()
    assert bench.give(message) == []
    assert not any(name.startswith("o:") for name in bench.work())
    bench.succeed(held)
    bench.give(message)
    bench.pass_time(1)
    assert bench.sent == []


def test_only_the_last_message_of_a_command_gives_it_back(bench: Stranger) -> None:
    """Otherwise each late message would make another one, without end."""
    bench.colleague("a")
    bench.start(step("one"))
    first = bench.sent[0]
    bench.give(first)
    bench.pass_time(0.05)
    bench.give(first)
    bench.pass_time(0.5)
    assert len(bench.sent) == 2
    assert bench.due_in_ms() > 10_000  # a lease after the last message


def test_a_repeated_call_changes_nothing_more(bench: Stranger) -> None:
    """After a lost reply the worker gives it back again, and the count of messages stays."""
    bench.start(step("one"))
    bench.give(bench.sent[0])
    bench.give(bench.sent[0])
    assert bench.work() == {"o:run:one:1": "0|1"}
    bench.colleague("a")
    for _ in range(3):
        bench.give(bench.sent[0])
        assert bench.work() == {"o:run:one:1": "0|0"}


def test_a_command_whose_sending_is_not_confirmed_is_given_back_later(bench: Stranger) -> None:
    """The sender's confirmation would overwrite the hand-back."""
    bench.colleague("a")
    bench.start(step("one"))
    message = bench.sent[0]
    value = bench.work()["o:run:one:1"]
    bench.edge.client.hset(KEYS.work, "o:run:one:1", "0|0")
    assert bench.give(replace(message, sent_ms=message.sent_ms + 10_000)) == []
    assert [each.step for each in bench.give(message)] == ["one"]
    bench.edge.client.hset(KEYS.work, "o:run:one:1", value)
    assert bench.give(message) == []
    bench.pass_time(0.1)
    assert len(bench.sent) == 2


def test_a_sending_again_that_is_not_confirmed_is_given_back_later(bench: Stranger) -> None:
    """The outbox still describes the previous message of a command given back before."""
    bench.start(step("one"))
    bench.give(bench.sent[0])
    before = bench.work()["o:run:one:1"]
    bench.pass_time(16)
    message, value = bench.sent[1], bench.work()["o:run:one:1"]
    bench.colleague("a")
    bench.edge.client.hset(KEYS.work, "o:run:one:1", before)
    assert [each.step for each in bench.give(message)] == ["one"]
    assert bench.work()["o:run:one:1"] == before
    bench.edge.client.hset(KEYS.work, "o:run:one:1", value)
    assert bench.give(message) == []
    bench.pass_time(0.1)
    assert len(bench.sent) == 3


def test_a_worker_that_is_busy_does_not_make_the_others_spin(bench: Stranger) -> None:
    """Each hand-back here waits longer, up to 1 s."""
    bench.colleague("a")
    bench.start(step("one"))
    waits = []
    for count in range(60):
        bench.colleague("a")
        bench.give(bench.sent[-1])
        waits.append(bench.due_in_ms())
        bench.pass_time(waits[-1] / 1000 + NOW)
        assert len(bench.sent) == count + 2
    assert waits == sorted(waits)
    assert waits[0] < 50
    assert waits[-1] == LATER_MS


def test_a_burst_is_spread(bench: Stranger) -> None:
    """Hundreds of commands come back one by one, so they do not fill the queue."""
    bench.colleague("a")
    bench.start(*(step(f"s{number}") for number in range(100)))
    rows = [(m.saga_id, *m.ref, m.sent_ms, m.task, m.queue) for m in bench.sent]
    bench.run(bench.desk.hand_back([Foreign(*row) for row in rows]))
    times = sorted(bench.due_in_ms(name=f"s{number}") for number in range(100))
    assert times[-1] - times[0] >= 99 * SPACE_MS


def test_where_nobody_has_it_a_command_waits_without_messages(bench: Stranger) -> None:
    """After three leases it is parked, as if its messages had been lost."""
    bench.start(step("one"))
    for count in range(1, UNROUTABLE_AFTER + 1):
        bench.give(bench.sent[-1])
        bench.pass_time(14, steps=14)
        assert len(bench.sent) == count
        assert bench.saga().steps["one"].run.state is StepState.DISPATCHED
        bench.pass_time(2)
    assert len(bench.sent) == UNROUTABLE_AFTER
    assert bench.saga().steps["one"].run.state is StepState.PARKED


def test_going_to_and_fro_does_not_park(bench: Stranger) -> None:
    """Rule 9 parks functions that no worker has; the only one with it may be restarting."""
    bench.colleague("a")
    bench.start(step("one"))
    for _ in range(10):
        bench.give(bench.sent[-1])
        bench.pass_time(1)
    bench.edge.client.hdel(SHARD.catalog("fleet"), "other@h")
    bench.give(bench.sent[-1])
    bench.pass_time(16, steps=16)
    assert bench.saga().steps["one"].run.state is StepState.DISPATCHED


def test_a_worker_of_another_queue_keeps_it_from_being_parked(bench: Stranger) -> None:
    """The worker is on the wrong queue: that is reported, and looks become rarer."""
    bench.colleague("a", queue="llm")
    bench.start(step("one"))
    waits = []
    for _ in range(8):
        bench.give(bench.sent[-1])
        waits.append(bench.due_in_ms() // 1000)
        bench.colleague("a", queue="llm")
        bench.clock.advance(waits[-1] + 1)
        bench.colleague("a", queue="llm")
        bench.pass_time(0)
    assert waits == [15, 30, 60, 120, 240, 240, 240, 240]
    assert bench.saga().steps["one"].run.state is StepState.DISPATCHED


def test_a_worker_that_brings_the_function_wakes_what_waits(bench: Stranger) -> None:
    """It wakes no commands for other functions or on other queues."""
    bench.start(step("one"))
    bench.give(bench.sent[0])
    for brings, queue in (("b", "io"), ("a", "llm")):
        other = bench.colleague(brings, queue=queue, host=f"{brings}@h")
        bench.run(other.wake([SHARD], [queue]))
        bench.pass_time(0.1)
        assert len(bench.sent) == 1
    right = bench.colleague("a")
    bench.run(right.wake([SHARD], ["io"]))
    bench.pass_time(NOW)
    assert len(bench.sent) == 2
    assert bench.edge.client.exists(SHARD.wanted) == 0


def test_a_worker_that_announces_itself_meanwhile_is_not_missed(bench: Stranger) -> None:
    """It woke the commands marked before, so the marking process looks once more."""
    bench.start(step("one"))
    message = bench.sent[0]
    row = (message.saga_id, *message.ref, message.sent_ms)
    flow = bench.desk.hand_back([Foreign(*row, message.task, message.queue)])

    def arrives() -> None:
        other = bench.colleague("a")
        bench.run(other.wake([SHARD], ["io"]))

    bench.interrupted(flow, "handback", arrives)
    bench.pass_time(0.1)
    assert len(bench.sent) == 2


def test_a_saga_that_is_damaged_before_the_second_look_is_logged(
    bench: Stranger,
) -> None:
    """The store refuses calls about that saga alone, so the worker's other steps go back."""
    bench.start(step("one"))
    message = bench.sent[0]
    row = (message.saga_id, *message.ref, message.sent_ms)
    flow = bench.desk.hand_back([Foreign(*row, message.task, message.queue)])
    bench.run(bench.empty.refresh(force=True))
    bench.colleague("a")

    def damage() -> None:
        bench.edge.client.rename(KEYS.work, f"{KEYS.work}:aside")
        bench.edge.client.set(KEYS.work, "of another type")

    with capture_logs() as lines:
        assert bench.interrupted(flow, "handback", damage, before=2) == []
    assert [line["saga"] for line in lines if line["log_level"] == "error"] == [SAGA]


def test_a_woken_command_that_was_done_meanwhile_stays_done(bench: Stranger) -> None:
    """Waking makes no command due that is not due any more."""
    bench.start(step("one"))
    bench.give(bench.sent[0])
    bench.succeed(bench.claim())
    due = bench.due()
    bench.run(bench.colleague("a").wake([SHARD], ["io"]))
    assert bench.due() == due


# ---- in a worker ----


MALFORMED: list[Any] = [
    None,
    "x",
    [],
    ["s", "run", "a", 1, "v"],
    ["s", "no", "a", 1, "v", 2],
    ["s", "run", "a", "1", "v", 2],
    [1, "run", "a", 1, "v", 2],
    ["s", "run", "a", 1, "v", 2, 30.0],
    [[], {}, "a", 1, "v", 2],
]


@pytest.mark.parametrize("mark", MALFORMED, ids=repr)
def test_only_a_command_of_the_engine_is_given_back(mark: Any) -> None:
    """Celery drops plain tasks, foreign messages and malformed ones."""
    assert foreign_of("f", {"multiagents": mark}, "io") is None
    assert foreign_of("f", None, "io") is None
    assert foreign_of("f", {"multiagents": ["s", "run", "a", 1, "v", 2]}, None) is None


class Consumer:
    """The parts of Celery's consumer that these tests use."""

    connection_errors = ()

    def __init__(self) -> None:
        self.app = Celery(set_as_current=False)
        self.app.conf.task_queues = [Queue("io"), Queue("mail", routing_key="mail.now")]
        self.strategies: dict[str, Any] = {"known": "its strategy"}
        self.dropped: list[str] = []

    def on_unknown_task(self, body: Any, message: Any, error: Exception) -> None:
        self.dropped.append(str(error))


def test_the_queue_is_named_as_its_workers_name_it() -> None:
    """A message has only a routing key, which a team may choose freely."""
    consumer, taken = Consumer(), []
    table = Strategies(consumer, taken.append)
    for key in ("io", "mail.now", "gone"):
        headers = {"multiagents": ["s", "run", "a", 1, "v", 2]}
        about = {"headers": headers, "delivery_info": {"routing_key": key}}
        table["pay"](type("Message", (), about)(), None, lambda *_: None, None, [])
    assert [each.queue for each in taken] == ["io", "mail", "gone"]


def test_celery_drops_what_is_no_command_and_a_command_is_acknowledged_and_taken() -> None:
    """Every task name has a strategy, and no message ends the worker."""
    consumer, taken, acked = Consumer(), [], []
    table = Strategies(consumer, taken.append)
    assert table["known"] == "its strategy"

    def come(name: str, headers: Any) -> None:
        message = type("Message", (), {"headers": headers, "delivery_info": {"routing_key": "io"}})
        table[name](message(), None, lambda *_: acked.append(name), None, [])

    come("plain", {"multiagents": ["s", "run", "a", 1, "v", 2, 30.0]})
    come("broken", {"multiagents": {"s": 1}})
    come("theirs", {})
    assert (consumer.dropped, taken, acked) == (["'plain'", "'broken'", "'theirs'"], [], [])
    come("pay", {"multiagents": ["s", "run", "a", 1, "v", 2]})
    assert taken == [Foreign("s", Kind.RUN, "a", 1, 2, "pay", "io")]
    assert acked == ["pay"]


def test_a_thread_that_waits_gives_back_at_once(bench: Stranger, redis_url: str) -> None:
    """It does not wait for its next round, and handles late arrivals at its end."""
    bench.start(step("one"), step("two"))
    given: list[str] = []
    took = threading.Event()

    class Desk(HandBack):
        async def hand_back(self, messages: Any) -> Any:
            given.extend(each.step for each in messages)
            took.set()
            return []

    thread = SweeperThread(
        bench.sweeper(),
        bench.edge,
        settings=bench.settings.model_copy(update={"sweep_s": 10.0, "lease_s": 60}),
        clock=bench.clock,
        announce=None,
        hand_back=Desk(bench.settings, bench.clock, bench.empty),
    )
    take = partial(Foreign, SAGA, Kind.RUN, attempt=1, sent_ms=1, function="a", queue="io")
    thread.start()
    thread.take(take("one"))
    wait_for(took.is_set, 3.0, "it to be given back")
    thread.take(take("two"))
    thread.stop()
    assert given == ["one", "two"]


def test_a_fan_out_is_sent_to_all_that_have_its_functions(bench: Stranger) -> None:
    """Only the slots of workers with these functions count."""
    steps = [step(f"a{number}") for number in range(3)]
    steps += [step(f"u{number}").model_copy(update={"worker": "undo"}) for number in range(3)]
    bench.colleague("a", host="a@h")
    bench.colleague("undo", host="u@h")
    given = {"input": "{}", "meta": "{}"}
    flow = Workflow(name="fan", steps=(step("first"), *(each for each in steps)))
    bench.run(bench.catalog.refresh(force=True))
    bench.run(bench.coordinator.start(flow, saga_id=SAGA, waiting=(SAGA, ""), data=given))
    assert [each.step for each in bench.sent] == ["first", "u0"]
