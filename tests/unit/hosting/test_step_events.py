"""How does a worker's main process learn which steps its children run?

`tests/processes/celery/test_flower.py` shows the monitors' view.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from multiagents.core.names import TELLS
from multiagents.core.ports import AtWork
from multiagents.core.states import Kind
from multiagents.hosting import step_events
from multiagents.hosting.step_events import Channel, Event
from multiagents.hosting.step_request import Sight, StepRequest
from multiagents.storage.client import StoreError

Record = tuple[str, str | None, Any]
STARTED: list[Any] = ["task-started", "s:b:1", {"timestamp": 1.5}]


@pytest.fixture
def heard() -> list[Record]:
    return []


@pytest.fixture
def channel(heard: list[Record]) -> Iterator[Channel]:
    made = Channel()
    made.open(lambda *record: heard.append(record))
    yield made
    made.close()


@pytest.fixture
def in_child(monkeypatch: pytest.MonkeyPatch, channel: Channel) -> None:
    """Make this process count as a child of the one that opened the channel."""
    monkeypatch.setattr(os, "getpid", lambda: -1)


@pytest.mark.usefixtures("in_child")
def test_the_main_process_hears_its_children_in_order(
    channel: Channel, heard: list[Record]
) -> None:
    """A read gives all events since the last one, without waiting."""
    channel.drain()
    channel.send("s:a:1", "s:b:1", [("task-started", "s:b:1", {"timestamp": 1.5})])
    channel.send("s:a:1", "", [])
    assert heard == []
    channel.drain()
    assert heard == [("s:a:1", "s:b:1", [STARTED]), ("s:a:1", "", [])]


def test_a_pool_without_children_is_heard_at_once(channel: Channel, heard: list[Record]) -> None:
    channel.send("s:a:1", "s:b:1", [])
    assert heard == [("s:a:1", "s:b:1", [])]


@pytest.mark.usefixtures("in_child")
def test_events_are_lost_where_the_main_process_does_not_listen(
    channel: Channel, heard: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step waits at most once, the log has one line, and later events arrive."""
    monkeypatch.setattr(step_events, "WAIT_S", 0.01)
    long: list[Event] = [("task-failed", "s:b:1", {"traceback": "x" * step_events.MOST_TEXT})]
    with capture_logs() as lines:
        for _ in range(100):
            channel.send("s:a:1", "s:b:1", long)
    said = [line["event"] for line in lines if "clock" not in line["event"]]  # of other threads
    assert said == ["task events are lost: monitors miss some steps"]
    channel.drain()
    assert 0 < len(heard) < 100
    channel.send("s:a:1", "", [])
    channel.drain()
    assert heard[-1] == ("s:a:1", "", [])


# ---- the main process ----


def request_of(*, enabled: bool = True, groups: tuple[str, ...] = ()) -> StepRequest:
    """A delivery as a worker with these settings receives it."""
    headers = {"id": "s:a:1", "task": "reserve", "argsrepr": "('s', 'a', 1)"}
    message = SimpleNamespace(
        headers=headers,
        body=b"",
        payload=([], {}, {}),
        content_type="application/json",
        content_encoding="utf-8",
        delivery_info={},
        properties={},
    )
    eventer = SimpleNamespace(enabled=enabled, groups=set(groups))
    task = SimpleNamespace(ignore_result=True, send_events=True)
    return StepRequest(message, app=SimpleNamespace(), task=task, eventer=eventer)


@pytest.mark.parametrize("groups", [(), ("task", "worker")])
def test_a_process_is_asked_to_tell_where_monitors_listen(groups: tuple[str, ...]) -> None:
    """A child sends events if the worker has ``-E`` or a monitor enabled them."""
    assert request_of(groups=groups).request_dict[TELLS] is True


@pytest.mark.parametrize(("enabled", "groups"), [(False, ()), (True, ("worker",))])
def test_nothing_is_told_where_no_monitor_listens(enabled: bool, groups: tuple[str, ...]) -> None:
    """Without ``-E`` a worker sends only its own events, so steps cost nothing more."""
    assert TELLS not in request_of(enabled=enabled, groups=groups).request_dict


def test_a_store_that_is_away_is_not_asked_again_at_once() -> None:
    """`inspect` shows the received step, and the main process waits once, not per step."""
    asked = []

    def look(saga_id: str) -> dict[str, AtWork]:
        asked.append(saga_id)
        raise StoreError("no Redis answers")

    sight = Sight()
    sight.open(look)
    with capture_logs() as lines:
        assert [sight.look("s", "s:a:1"), sight.look("t", "t:a:1")] == [None, None]
    assert asked == ["s"]
    assert [line["event"] for line in lines] == ["cannot see which step is at work"]


def test_a_saga_is_read_once_for_all_its_steps_that_are_at_work() -> None:
    """A wide saga fills many slots and is slow to read."""
    asked = []

    def look(saga_id: str) -> dict[str, AtWork]:
        asked.append(saga_id)
        return {f"{saga_id}:a:1": at("b"), f"{saga_id}:c:1": at("c")}

    sight = Sight()
    sight.open(look)
    assert sight.look("s", "s:a:1") == at("b")
    assert sight.look("s", "s:c:1") == at("c")
    assert sight.look("s", "s:d:1") is None
    assert sight.look("t", "t:a:1") == at("b")
    assert asked == ["s", "t"]


def at(step: str) -> AtWork:
    return AtWork(Kind.RUN, step, 1, "charge", 0)
