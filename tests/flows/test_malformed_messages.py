"""Can a message end a worker?

Any writer to the broker can write messages that no Celery sends. Such a message is logged and
dropped; one without the engine's mark is another program's.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import structlog
from celery import Celery, signals
from celery.app.task import Context
from kombu import Connection

from multiagents.core import marks
from multiagents.core.marks import Mark, read_mark
from multiagents.core.names import HEADER
from multiagents.core.states import Kind
from multiagents.engine.handback import foreign_of
from multiagents.hosting import revocation
from multiagents.hosting.step_task import _version
from multiagents.transport.backlogs import _sent_ms
from multiagents.transport.kombu_redis import NAME

SOUND = ["s", "run", "charge", 1, "v", 1700]
MALFORMED: list[Any] = [
    [],
    [1],
    "x",
    7,
    {"a": 1},
    [None] * 6,
    [None] * 7,
    [*SOUND, "soon"],
    [*SOUND, None],
    [["s"], *SOUND[1:]],
    ["s", "fly", *SOUND[2:]],
    ["s", ["run"], *SOUND[2:]],
    ["s", "run", "charge", "one", "v", 1],
    ["s", "run", "charge", True, "v", 1],
    SOUND[:5],
    [*SOUND[:5], float("inf")],
    [*SOUND[:5], 2**70],
    [*SOUND, float("-inf")],
    ["\ud800", *SOUND[1:]],
    [*SOUND[:2], "\udfff", *SOUND[3:]],
]


@pytest.mark.parametrize(
    ("mark", "timeout_s"), [(SOUND, None), ([*SOUND, 3], 3), ([*SOUND, 2.5, "newer"], 2.5)]
)
def test_a_mark_says_which_attempt_a_message_is_for(mark: list[Any], timeout_s: Any) -> None:
    """A plain task's mark has its timeout, and fields of a newer engine are ignored."""
    assert read_mark({HEADER: mark}) == Mark("s", Kind.RUN, "charge", 1, "v", 1700, timeout_s)


@pytest.mark.parametrize("headers", [None, [], "x", 7, {}, {HEADER: None}, Context({})])
def test_most_messages_have_none(headers: Any) -> None:
    """Headers of any form are no mark."""
    assert read_mark(headers) is None


@pytest.mark.parametrize("mark", MALFORMED, ids=repr)
def test_a_malformed_mark_is_logged_once(mark: Any) -> None:
    """Each reader of marks treats such a message as foreign."""
    marks._tell.cache_clear()
    raw = json.dumps({"headers": {HEADER: mark}}).encode()
    with structlog.testing.capture_logs() as said:
        assert read_mark({HEADER: mark}) is None
        assert _version(Context({HEADER: mark})) == ""
        assert _sent_ms(raw) is None
        assert foreign_of("f", {HEADER: mark}, "q") is None
    assert [line["header"] for line in said] == [repr(mark)]


@pytest.mark.parametrize(("name", "queue"), [("\ud800", "q"), ("f", "\ud800"), ("f", None)])
def test_a_message_whose_task_or_queue_has_no_name_is_given_back_to_nobody(
    name: str, queue: object
) -> None:
    """In one batch with others it would prevent their hand-back."""
    assert foreign_of("f", {HEADER: SOUND}, "q") is not None
    assert foreign_of(name, {HEADER: SOUND}, queue) is None


def test_a_time_that_is_no_number_is_none() -> None:
    """Python's JSON reads NaN, which does not even equal itself."""
    assert read_mark({HEADER: [*SOUND[:5], float("nan")]}) is None


@pytest.mark.parametrize("raw", [b"", b"no json", b"[]", b"7", b"\xff", b'{"headers": 7}'])
def test_a_queue_whose_head_cannot_be_read_can_be_looked_into(raw: bytes) -> None:
    """Otherwise no message behind it would be resent."""
    assert _sent_ms(raw) is None


@pytest.mark.parametrize("mark", MALFORMED, ids=repr)
def test_a_discarded_message_with_a_malformed_mark_is_not_reported(mark: Any) -> None:
    """A revoked, expired or unknown message has nothing to report."""
    app = Celery("malformed", set_as_current=False)
    asked: list[str] = []

    def engine() -> Any:
        asked.append("engine")
        raise AssertionError("asked for nothing")

    revocation.listen(app, engine)
    sender = type("Sender", (), {"app": app, "hostname": "h"})
    request = Context({"id": "i", HEADER: mark})
    message = type("Message", (), {"headers": {HEADER: mark}})
    signals.task_revoked.send(sender, request=request, terminated=False, expired=False, signum=None)
    signals.task_unknown.send(sender, message=message, name="n", id="i", exc=None)
    assert asked == []


def envelope(**changed: Any) -> dict[str, Any]:
    """A message as Celery sends it, with these changes."""
    properties = {
        "delivery_tag": "t",
        "delivery_info": {"exchange": "", "routing_key": "q"},
        "body_encoding": "base64",
        "priority": 0,
    }
    whole = {
        "body": base64.b64encode(b"[[], {}, {}]").decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": "t", "id": "i"},
        "properties": properties,
    }
    properties.update(changed.pop("properties", None) or {})
    return {**whole, **changed}


BROKEN = {
    "no JSON": b"no json",
    "no text": b"\xff\xfe",
    "a number": b"7",
    "a list": b"[]",
    "nothing in it": b"{}",
    "nested": b"[" * 200_000,
    "no properties": json.dumps({"headers": {}}).encode(),
    "a tag that is a list": json.dumps(envelope(properties={"delivery_tag": [1]})).encode(),
    "a body that is not encoded": json.dumps(envelope(body="!!!")).encode(),
    "headers that are a text": json.dumps(envelope(headers="x")).encode(),
    "a mark that is a number": json.dumps(envelope(headers={HEADER: 7})).encode(),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_follows_a_broken_message_is_delivered(redis_url: str, name: str) -> None:
    """The broken message is dropped and leaves nothing on the server."""
    got: list[Any] = []
    with Connection(redis_url, transport=NAME) as connection:
        channel = connection.channel()
        client = channel.client
        client.delete("broken-q", "unacked", "unacked_index")
        channel.basic_consume("broken-q", no_ack=False, callback=got.append, consumer_tag="c")
        client.lpush("broken-q", BROKEN[name])
        client.lpush("broken-q", json.dumps(envelope(properties={"delivery_tag": "good"})))
        while not any(message.delivery_tag == "good" for message in got):
            connection.drain_events(timeout=5)
        for message in got:
            message.ack()
        assert (client.llen("broken-q"), client.hlen("unacked")) == (0, 0)


def test_a_message_that_celery_cannot_take_is_let_go_of(redis_url: str) -> None:
    """Kept on the server, it would return after each visibility timeout."""

    def refuse(message: Any) -> None:
        raise KeyError("a field that it should have")

    with (
        Connection(redis_url, transport=NAME) as connection,
        structlog.testing.capture_logs() as said,
    ):
        channel = connection.channel()
        channel.client.delete("broken-q", "unacked", "unacked_index")
        channel.basic_consume("broken-q", no_ack=False, callback=refuse, consumer_tag="c")
        channel.client.lpush("broken-q", json.dumps(envelope()))
        connection.drain_events(timeout=5)
        assert channel.client.hlen("unacked") == 0
    line = next(line for line in said if line["event"] == "a message cannot be read, it is dropped")
    assert line["at"].startswith("test_malformed_messages.py:")
