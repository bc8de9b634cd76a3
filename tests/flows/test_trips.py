"""How many Redis trips does each operation take?

A higher count is a slower path; a lower one is recorded here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from multiagents import WorkflowBuilder, worker
from multiagents.core.effects import Flow
from multiagents.core.entries import Requested
from multiagents.core.exceptions import UnknownSaga
from multiagents.core.states import Action, SagaState, StepState
from multiagents.engine.repository import Reading
from multiagents.storage.calls import Call, Plain
from tests.support.office import Office, open_office


@worker("trips.do")
def do(context: Any) -> dict[str, Any]:
    return {}


Trips = Callable[..., list[str]]
CHAIN = (
    WorkflowBuilder("trips").add_step("one", "trips.do", pivot=True).add_step("two", "trips.do")
).build()


@pytest.fixture
def office(redis_url: str) -> Iterator[Office]:
    with open_office(redis_url) as found:
        yield found


@pytest.fixture
def trips(office: Office) -> Trips:
    """Runs a flow and returns the operations it sent to Redis, in order.

    ``twice``: the script that is sent again, as after a lost reply.
    """

    def run(flow: Flow[Any], twice: str = "") -> list[str]:
        asked: list[str] = []
        reply: Any = None
        while True:
            try:
                effect = flow.send(reply)
            except StopIteration:
                return asked
            if isinstance(effect, Call):
                asked.append(effect.script)
            elif isinstance(effect, Plain):
                asked.append(str(effect.command[0]))
            if twice and isinstance(effect, Call) and effect.script == twice:
                office.runtime.edge.execute(effect)
            reply = office.runtime.edge.execute(effect)

    return run


def reading(office: Office, saga_id: str) -> Reading:
    repository = office.runtime.host.coordinator.repository
    return office.runtime.edge.run(repository.reading(repository.keys(saga_id)))


def parked(office: Office) -> str:
    """A saga whose last step is a dead letter."""
    saga_id = office.start(CHAIN)
    office.succeed(saga_id, "one")
    office.fail(office.claim(saga_id, "two"))
    assert office.current(saga_id)[0].attention
    return saga_id


def test_a_dead_letter_is_tried_again_in_three_trips(office: Office, trips: Trips) -> None:
    """They read the saga, write the action with its decision, and read the data to show."""
    saga_id = parked(office)
    asked = trips(office.runtime.host.service.retry(saga_id, "two"))
    assert asked == ["append", "advance", "HGETALL"]
    assert office.claim(saga_id, "two", attempt=2).attempt == 2


def test_a_process_that_does_not_know_the_saga_reads_its_headers_too(
    office: Office, trips: Trips
) -> None:
    """The commit may publish the step's message, which carries the start's headers."""
    saga_id = parked(office)
    office.runtime.host.coordinator.dispatcher.headers.forget(saga_id)
    asked = trips(office.runtime.host.service.retry(saga_id, "two"))
    assert asked == ["append", "HGET", "advance", "HGETALL"]


def test_an_order_that_was_overtaken_is_decided_over_the_fresh_state(
    office: Office, trips: Trips
) -> None:
    """It is logged once, and the operator sees the saga's newest state."""
    saga_id = office.start(CHAIN)
    coordinator = office.runtime.host.coordinator
    found = reading(office, saga_id)
    office.succeed(saga_id, "one")
    pause = Requested(office.runtime.clock.now_ms(), Action.PAUSE, "request", "ada")
    saga = office.runtime.edge.run(coordinator.order(found, pause))
    assert saga.state is SagaState.PAUSED
    assert saga.steps["one"].run.state is StepState.SUCCEEDED
    assert office.current(saga_id)[0] == saga
    history = office.runtime.call("history", saga_id)
    assert [event["type"] for event in history].count("asked") == 1


def test_an_order_whose_reply_was_lost_counts_once(office: Office, trips: Trips) -> None:
    """The edge sends the commit again, which finds itself done."""
    saga_id = office.start(CHAIN)
    coordinator = office.runtime.host.coordinator
    found = reading(office, saga_id)
    pause = Requested(office.runtime.clock.now_ms(), Action.PAUSE, "request", "ada")
    trips(coordinator.order(found, pause), twice="advance")
    assert office.current(saga_id)[0].state is SagaState.PAUSED
    history = office.runtime.call("history", saga_id)
    assert [event["type"] for event in history].count("asked") == 1


def test_an_order_for_a_saga_that_is_gone_says_so(office: Office) -> None:
    """Its retention ended after the read."""
    saga_id = office.start(CHAIN)
    coordinator = office.runtime.host.coordinator
    found = reading(office, saga_id)
    office.runtime.edge.client.delete(*found.keys.all)
    pause = Requested(office.runtime.clock.now_ms(), Action.PAUSE, "request", "ada")
    with pytest.raises(UnknownSaga, match=saga_id):
        office.runtime.edge.run(coordinator.order(found, pause))
