"""What does an event promise to its receiver?"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import multiagents
from multiagents.core import events as core_events
from multiagents.core.events import (
    EVENT_TYPES,
    CommandEvent,
    CompensationEvent,
    ErrorEvent,
    Event,
    ResultEvent,
    StatusEvent,
    parse_event,
)
from multiagents.core.exceptions import InvalidInput
from multiagents.core.states import SagaState

EVENTS: list[Event] = [
    CommandEvent(transaction_id="t", worker_name="w", context={"a": [1, None]}, retry_count=2),
    ResultEvent(transaction_id="t", worker_name="w", result={"ok": True}, step_name="s"),
    ErrorEvent(transaction_id="t", worker_name="w", error="no stock"),
    CompensationEvent(transaction_id="t", worker_name="w", context={"sku": "A1"}),
    StatusEvent(transaction_id="t", state=SagaState.RUNNING, current_step="s"),
]


def test_there_is_one_example_of_every_event_type() -> None:
    """The list above covers the whole vocabulary."""
    assert {event.event_type for event in EVENTS} == set(EVENT_TYPES)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.event_type)
def test_an_event_survives_json_and_dict(event: Event) -> None:
    """Written and parsed again, an event is equal to itself, its type included."""
    for data in (event.to_json(), event.to_json().encode(), event.model_dump()):
        parsed = parse_event(data)
        assert type(parsed) is type(event)
        assert parsed == event


@given(
    st.dictionaries(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=8,
        ),
    )
)
def test_any_json_context_survives(context: dict[str, Any]) -> None:
    """Any JSON in a saga's context arrives unchanged."""
    event = CommandEvent(transaction_id="t", worker_name="w", context=context)
    assert parse_event(event.to_json()) == event


def test_an_event_cannot_be_changed() -> None:
    """All receivers share one value, so it is frozen."""
    with pytest.raises(ValidationError, match="frozen"):
        EVENTS[0].transaction_id = "other"  # type: ignore[misc]  # the promise under test


def test_correlation_id_is_the_transaction_unless_given() -> None:
    """The correlation id defaults to the transaction's id."""
    assert StatusEvent(transaction_id="t", state=SagaState.FAILED).correlation_id == "t"
    named = StatusEvent(transaction_id="t", correlation_id="c", state=SagaState.FAILED)
    assert named.correlation_id == "c"


def test_every_event_has_its_own_id() -> None:
    """A receiver recognises a repeated delivery by the id."""
    first, second = (ErrorEvent(transaction_id="t", worker_name="w", error="e") for _ in "ab")
    assert first.event_id != second.event_id


def test_the_default_timestamp_is_now_in_utc_with_its_zone() -> None:
    """The timestamp is ISO 8601 and ends with +00:00."""
    event = StatusEvent(transaction_id="t", state=SagaState.PENDING)
    assert event.timestamp.endswith("+00:00")
    assert abs(datetime.now(UTC) - event.occurred_at) < timedelta(minutes=1)


def test_a_timestamp_with_another_zone_is_converted_to_utc() -> None:
    """Text and datetime keep their moment."""
    moment = datetime(2025, 3, 1, 14, 0, tzinfo=timezone(timedelta(hours=2)))
    for given_as in (moment, moment.isoformat()):
        event = parse_event({**EVENTS[2].model_dump(), "timestamp": given_as})
        assert event.timestamp == "2025-03-01T12:00:00+00:00"


def test_a_timestamp_without_a_zone_is_refused() -> None:
    """A local time would be read differently on another host."""
    with pytest.raises(InvalidInput, match=r"timestamp: .*no time zone"):
        parse_event({**EVENTS[2].model_dump(), "timestamp": "2025-03-01T12:00:00"})


@pytest.mark.parametrize("data", [{"event_type": "nonsense"}, {}, '{"event_type": "nonsense"}'])
def test_an_unknown_type_is_refused_with_the_known_ones(data: Any) -> None:
    """The message lists the known types."""
    with pytest.raises(InvalidInput, match="known: command, result, error, compensation, status"):
        parse_event(data)


def test_a_refused_event_is_not_repeated_in_the_message() -> None:
    """The message names the field and omits the context, which may hold secrets."""
    with pytest.raises(InvalidInput, match="worker_name") as caught:
        parse_event({"event_type": "command", "transaction_id": "t", "context": {"k": "hunter2"}})
    assert "hunter2" not in str(caught.value)
    with pytest.raises(InvalidInput, match="not an event"):
        parse_event(b"hunter2")


def test_unknown_fields_of_a_newer_sender_are_ignored() -> None:
    """Processes of two versions may share a bus."""
    assert parse_event({**EVENTS[1].model_dump(), "colour": "blue"}) == EVENTS[1]


def test_a_value_that_is_not_json_is_refused_when_written() -> None:
    """The sender gets the error, not the receiver."""
    event = CommandEvent(transaction_id="t", worker_name="w", context={"f": object()})
    with pytest.raises(InvalidInput, match="command event of saga t is not JSON"):
        event.to_json()


class _Doubler:
    async def execute(self, context: dict[str, Any], /) -> dict[str, Any]:
        return {"n": context["n"] * 2}


class _Workers:
    def get_worker(self, name: str, /) -> _Doubler:
        assert name == "double"
        return _Doubler()


async def _doubled() -> dict[str, Any]:
    event = CommandEvent(transaction_id="t", worker_name="double", context={"n": 4})
    return await event.execute_via(_Workers())


def test_a_command_can_be_executed_through_whoever_holds_the_workers() -> None:
    """The command names its worker and holds the worker's input."""
    assert asyncio.run(_doubled()) == {"n": 8}


def test_the_six_states_of_a_workflow_are_a_type() -> None:
    """`WorkflowState` is an annotation; a saga has two further states while it is under way."""
    assert multiagents.WorkflowState is core_events.WorkflowState
    assert {*get_args(multiagents.WorkflowState), "paused", "compensating"} == set(SagaState)
