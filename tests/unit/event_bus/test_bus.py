"""Do both event buses, in memory and on a real server, keep the promises of `event_bus.bus`?"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from structlog.contextvars import get_contextvars

from multiagents.core.events import CommandEvent, ErrorEvent, Event, ResultEvent, StatusEvent
from multiagents.core.exceptions import InvalidInput
from multiagents.core.states import SagaState
from multiagents.event_bus.bus import EventBus
from multiagents.event_bus.memory_bus import MemoryEventBus
from multiagents.event_bus.redis_bus import RedisEventBus
from tests.support.bus import SOON_S, Inbox, status, until

pytestmark = pytest.mark.anyio

MakeBus = Callable[..., EventBus]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["memory", "redis"])
def make_bus(request: pytest.FixtureRequest) -> MakeBus:
    """Makes buses with the given options; one test's Redis buses share a server."""
    if request.param == "memory":
        return MemoryEventBus
    url = request.getfixturevalue("redis_url")
    return lambda **options: RedisEventBus(url, **options)


@pytest.fixture
async def bus(make_bus: MakeBus) -> AsyncIterator[EventBus]:
    made = make_bus(redeliver_after_s=SOON_S, max_deliveries=3)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def patient_bus(make_bus: MakeBus) -> AsyncIterator[EventBus]:
    """Makes a bus with slow redelivery, for tests that count deliveries."""
    made = make_bus()
    await made.start()
    yield made
    await made.stop()


async def test_each_group_gets_each_event_once(patient_bus: EventBus) -> None:
    """The members of a group share its events; other groups get their own."""
    first, second, other = Inbox(), Inbox(), Inbox()
    await patient_bus.subscribe("status", first, group="g")
    await patient_bus.subscribe("status", second, group="g")
    await patient_bus.subscribe("status", other, group="h")
    events = [status(n) for n in range(10)]
    for event in events:
        await patient_bus.publish(event)
    await other.has(10)
    await until(lambda: len(first.events) + len(second.events) >= 10)
    assert other.events == events
    assert sorted(first.ids + second.ids) == sorted(e.transaction_id for e in events)


async def test_events_of_one_type_arrive_in_order(patient_bus: EventBus) -> None:
    """A reader gets events in the order of publishing."""
    inbox, private = Inbox(), Inbox()
    await patient_bus.subscribe("status", inbox, group="g")
    await patient_bus.subscribe("status", private)
    for number in range(100):
        await patient_bus.publish(status(number))
    await inbox.has(100)
    await private.has(100)
    assert inbox.ids == private.ids == [f"t{n}" for n in range(100)]


@pytest.mark.parametrize("group", [None, "g"])
async def test_a_star_subscribes_to_every_type(patient_bus: EventBus, group: str | None) -> None:
    """`*` receives all types; a named type receives only that one."""
    everything, errors = Inbox(), Inbox()
    await patient_bus.subscribe("*", everything, group=group)
    await patient_bus.subscribe("error", errors, group="e")
    sent: list[Event] = [
        status(),
        ErrorEvent(transaction_id="t", worker_name="w", error="x"),
        CommandEvent(transaction_id="t", worker_name="w", context={"n": 1}),
    ]
    for event in sent:
        await patient_bus.publish(event)
    await everything.has(3)
    await errors.has(1)
    assert {e.event_id for e in everything.events} == {e.event_id for e in sent}
    assert errors.events == [sent[1]]


async def test_a_private_subscription_sees_what_comes_after_it(bus: EventBus) -> None:
    """Each private subscriber gets its own copy of new events, and no older ones."""
    await bus.publish(status(1))
    first, second = Inbox(), Inbox()
    await bus.subscribe("status", first)
    await bus.subscribe("status", second)
    await bus.publish(status(2))
    await first.has(1)
    await second.has(1)
    assert first.ids == second.ids == ["t2"]


async def test_a_refused_event_is_delivered_again(bus: EventBus) -> None:
    """An exception in the handler leaves its event unacknowledged."""
    inbox = Inbox(refuse=2)
    await bus.subscribe("status", inbox, group="g")
    await bus.publish(status(1))
    await inbox.has(1)
    assert inbox.calls == 3
    assert await bus.dead_letters() == []


async def test_an_event_refused_too_often_becomes_a_dead_letter(bus: EventBus) -> None:
    """The dead letter has the error; other events and other groups go on."""
    stubborn, healthy = Inbox(refuse=3), Inbox()
    await bus.subscribe("status", stubborn, group="g")
    await bus.subscribe("status", healthy, group="h")
    event = status(1)
    await bus.publish(event)
    await until(lambda: stubborn.calls == 3)
    await bus.publish(status(2))
    await stubborn.has(1)
    [letter] = await bus.dead_letters()
    assert (letter.group, letter.event_type, letter.deliveries) == ("g", "status", 3)
    assert letter.error == "ConnectionRefusedError"
    assert letter.event == event.to_json()
    assert stubborn.ids == ["t2"]
    await healthy.has(2)


async def test_a_group_misses_nothing_while_it_is_away(bus: EventBus) -> None:
    """After its first subscription, the bus keeps events for an absent group."""
    before, after = Inbox(), Inbox()
    subscription = await bus.subscribe("status", before, group="g")
    await bus.unsubscribe(subscription)
    await bus.publish(status(1))
    await bus.stop()
    await bus.start()
    await bus.subscribe("status", after, group="g")
    await after.has(1)
    assert before.events == []


async def test_the_bus_has_a_default_group(make_bus: MakeBus) -> None:
    """A subscription without a group uses it."""
    bus = make_bus(group="mine")
    await bus.start()
    first, second = Inbox(), Inbox()
    subscription = await bus.subscribe("status", first)
    await bus.subscribe("status", second)
    await bus.publish(status(1))
    await until(lambda: first.events or second.events)
    assert subscription.group == "mine"
    await bus.stop()
    assert len(first.events) + len(second.events) == 1


async def test_a_plain_handler_runs_beside_the_loop(bus: EventBus) -> None:
    """A blocking handler does not stall other subscriptions."""
    release, inbox, seen = threading.Event(), Inbox(), []

    def blocking(event: Event) -> None:
        assert release.wait(10)
        seen.append(event)

    await bus.subscribe("status", blocking, group="plain")
    await bus.subscribe("status", inbox, group="async")
    await bus.publish(status(1))
    await inbox.has(1)
    assert seen == []
    release.set()
    await until(lambda: seen)


async def test_a_failing_private_handler_gets_the_next_event(
    bus: EventBus, caplog: pytest.LogCaptureFixture
) -> None:
    """A private event is not redelivered: the bus logs the failure with its event."""
    inbox = Inbox(refuse=1)
    await bus.subscribe("status", inbox)
    await bus.publish(status(1))
    await bus.publish(status(2))
    await inbox.has(1)
    assert inbox.ids == ["t2"]
    [record] = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "event handler failed" in record.getMessage()
    assert "transaction_id=t1" in record.getMessage()


async def test_a_cancelled_inner_task_counts_as_a_refusal(bus: EventBus) -> None:
    """A handler's own cancellation does not end its subscription; only the bus ends it."""
    calls: list[Event] = []

    async def handler(event: Event) -> None:
        calls.append(event)
        if len(calls) == 1:
            raise asyncio.CancelledError

    await bus.subscribe("status", handler, group="g")
    await bus.publish(status(1))
    await until(lambda: len(calls) == 2)


async def test_unsubscribing_ends_the_calls(bus: EventBus) -> None:
    """A second call changes nothing."""
    inbox, other = Inbox(), Inbox()
    subscription = await bus.subscribe("status", inbox)
    await bus.unsubscribe(subscription)
    await bus.unsubscribe(subscription)
    await bus.subscribe("status", other)
    await bus.publish(status(1))
    await other.has(1)
    assert inbox.events == []


async def test_a_handler_may_end_its_own_subscription(bus: EventBus) -> None:
    """The handler finishes its event and gets no other."""
    seen: list[str] = []

    async def once(event: Event) -> None:
        await bus.unsubscribe(subscription)
        seen.append(event.transaction_id)

    subscription = await bus.subscribe("status", once, group="g")
    other = Inbox()
    await bus.subscribe("status", other)
    for number in range(3):
        await bus.publish(status(number))
    await other.has(3)
    await bus.stop()
    assert seen == ["t0"]


async def test_a_handler_cannot_stop_its_own_bus(bus: EventBus) -> None:
    """Bus and handler would wait for each other."""
    errors: list[Exception] = []

    async def stopping(_: Event) -> None:
        try:
            await bus.stop()
        except InvalidInput as error:
            errors.append(error)

    await bus.subscribe("status", stopping)
    await bus.publish(status())
    await until(lambda: errors)
    assert "a handler cannot stop its own event bus" in str(errors[0])


async def test_stopping_waits_for_the_handler_at_work(bus: EventBus) -> None:
    """A running handler finishes and acknowledges, so no restart repeats its event."""
    begun, leave, finished = asyncio.Event(), asyncio.Event(), []

    async def slow(event: Event) -> None:
        begun.set()
        await leave.wait()
        finished.append(event)

    await bus.subscribe("status", slow, group="g")
    await bus.publish(status(1))
    await begun.wait()
    stopping = asyncio.create_task(bus.stop())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(stopping), SOON_S)
    leave.set()
    await stopping
    assert len(finished) == 1
    await bus.start()
    again = Inbox()
    await bus.subscribe("status", again, group="g")
    await bus.publish(status(2))
    await again.has(1)
    assert again.ids == ["t2"]


async def test_starting_and_stopping_are_idempotent_and_leave_nothing(make_bus: MakeBus) -> None:
    """Repeated calls change nothing, and no task stays behind."""
    before = asyncio.all_tasks()
    bus = make_bus()
    await bus.stop()
    for _ in range(2):
        await bus.start()
        await bus.start()
        inbox = Inbox()
        await bus.subscribe("*", inbox, group="g")
        await bus.subscribe("*", Inbox())
        await bus.publish(status(1))
        await inbox.has(1)
        await bus.stop()
        await bus.stop()
    assert asyncio.all_tasks() == before


async def test_a_bus_that_is_not_started_says_so(make_bus: MakeBus) -> None:
    """The message says what to do."""
    bus = make_bus()
    with pytest.raises(InvalidInput, match=r"cannot publish: .* await bus\.start\(\) first"):
        await bus.publish(status())
    with pytest.raises(InvalidInput, match="cannot subscribe"):
        await bus.subscribe("status", Inbox())


async def test_an_unknown_type_is_refused(bus: EventBus) -> None:
    """The error names the known types."""
    with pytest.raises(InvalidInput, match=r"'stauts'; known: command, .*or '\*' for all"):
        await bus.subscribe("stauts", Inbox())


async def test_an_event_that_is_not_json_is_refused_by_publish(bus: EventBus) -> None:
    """The memory bus refuses it, too, so tests without a server find it."""
    with pytest.raises(InvalidInput, match="result event of saga t is not JSON"):
        await bus.publish(ResultEvent(transaction_id="t", worker_name="w", result={"f": object()}))


class Stages:
    """A monitor that records its calls."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, str]] = []

    async def track_event_lifecycle(self, event: Event, stage: str) -> None:
        self.stages.append((event.transaction_id, stage))


async def test_the_monitor_is_told_every_stage(make_bus: MakeBus) -> None:
    """The monitor gets each stage from dispatch to the handler's end, also of a failure."""
    monitor = Stages()
    bus = make_bus(event_monitor=monitor)
    await bus.start()
    inbox = Inbox(refuse=1)
    await bus.subscribe("status", inbox)
    await bus.publish(status(1))
    await bus.publish(status(2))
    await inbox.has(1)
    await bus.stop()
    for number, end in ((1, "failed"), (2, "completed")):
        stages = [stage for saga, stage in monitor.stages if saga == f"t{number}"]
        assert stages[0] == "dispatched"
        assert set(stages[1:]) == {"published", "picked_up", "processing", end}
        assert [s for s in stages if s != "published"][1:] == ["picked_up", "processing", end]


class BrokenMonitor:
    def track_event_lifecycle(self, event: Event, stage: str) -> None:
        raise LookupError(stage)


async def test_a_broken_monitor_stops_nothing(
    make_bus: MakeBus, caplog: pytest.LogCaptureFixture
) -> None:
    """The bus logs the monitor's errors and delivers events."""
    bus = make_bus(event_monitor=BrokenMonitor())
    await bus.start()
    inbox = Inbox()
    await bus.subscribe("status", inbox, group="g")
    await bus.publish(status(1))
    await inbox.has(1)
    await bus.stop()
    assert any("event monitor failed" in record.getMessage() for record in caplog.records)


async def test_a_handler_logs_under_its_events_ids(bus: EventBus) -> None:
    """Its log lines carry transaction_id and correlation_id, in a thread too."""
    bound: list[dict[str, Any]] = []
    await bus.subscribe("status", lambda event: bound.append(get_contextvars()), group="g")
    await bus.publish(
        StatusEvent(transaction_id="t", correlation_id="c", state=SagaState.COMPLETED)
    )
    await until(lambda: bound)
    assert bound == [{"transaction_id": "t", "correlation_id": "c"}]
    assert get_contextvars() == {}
