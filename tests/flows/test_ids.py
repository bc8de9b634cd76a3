"""Are ids and queue names checked on entry, and read safely from the store?"""

from __future__ import annotations

import uuid

import fakeredis
import pytest
from celery import Celery
from structlog.testing import capture_logs

from multiagents import InvalidInput, InvalidWorkflow, WorkflowBuilder, task, worker
from multiagents.core import ids
from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.fields import outbox_field
from multiagents.core.names import queue_flaw
from multiagents.core.settings import Settings
from multiagents.core.states import Kind, SagaState
from multiagents.engine.messages import Message, Publish, Unsendable
from multiagents.hosting.bootstep import _check_queues
from multiagents.hosting.saga_tasks import Courier
from multiagents.hosting.sweeper_thread import SweeperThread
from multiagents.storage import keys as k
from multiagents.storage.client import Edge
from multiagents.storage.keys import SagaKeys, Shard
from multiagents.transport.direct_publish import Letters
from tests.flows.test_sweeper import World

ODD_IDS = ["order|42", "|", "a|b|c|d|e|f", "d|x", "tenant/7 order:42", "über-größe", "1"]
"""Ids that a caller may choose."""
BAD_IDS = [
    *("", "a\nb", "a\x00b", "\x1b[31mred", "a\u202eb", "\ud800", "x" * 201, "ü" * 101),
    *(None, b"bytes", True, 1.5, ["list"]),
]
BAD_QUEUES = [
    *("ma:{s00}:log:victim", "ma:bus:dead", "_kombu.binding.io", "unacked", "unacked_index"),
    *(
        "celery-task-meta-1",
        "worker@host.celery.pidbox",
        "io\x06\x163",
        "a\nb",
        "\ud800",
        "x" * 129,
    ),
]


@pytest.fixture
def world() -> World:
    """A coordinator and a sweeper over a store in process."""
    made = World("redis://unused")
    made.edge = Edge("", perform=made.perform, client=fakeredis.FakeRedis())
    return made


@pytest.mark.parametrize("odd", ODD_IDS)
def test_what_is_due_is_read_whatever_the_id_of_its_saga(odd: str) -> None:
    """Bars separate a due member's parts, and an id may contain bars."""
    field = outbox_field(AttemptRef(Kind.RUN, "a", 1))
    assert k.parse_due(k.due_dirty(odd)) == (k.DueKind.DIRTY, odd, ())
    assert k.parse_due(k.due_purge(odd)) == (k.DueKind.PURGE, odd, ())
    assert k.parse_due(k.due_timer(odd, "deadline")) == (k.DueKind.TIMER, odd, ("deadline",))
    assert k.parse_due(k.due_outbox(odd, field)) == (k.DueKind.OUTBOX, odd, (field,))
    lease = k.due_lease(odd, AttemptRef(Kind.UNDO, "a", 2), "abc")
    assert k.parse_due(lease) == (k.DueKind.LEASE, odd, ("undo", "a", "2", "abc"))


@pytest.mark.parametrize("odd", ODD_IDS)
def test_a_saga_of_any_id_keeps_its_leases_timers_and_retention(world: World, odd: str) -> None:
    """A lost worker is noticed, and the ended saga is removed."""
    world.start(odd)
    claim = world.coordinator.slots.claim(
        odd, AttemptRef(Kind.RUN, "a", 1), delivery="lost", queue="io"
    )
    assert world.edge.run(claim) is not None
    world.sweep(60)
    assert world.saga(odd).steps["a"].run.attempt == 2
    world.do("a", saga_id=odd, attempt=2)
    world.do("b", saga_id=odd)
    assert world.saga(odd).state is SagaState.COMPLETED
    world.sweep(120)
    assert world.edge.client.exists(SagaKeys(odd).saga) == 0
    assert world.edge.client.zcard(Shard().due) == 0


@pytest.mark.parametrize("member", ["", "z|a", "l|too|short", "o|", "t|only", "no bars"])
def test_a_strange_due_member_is_named_and_put_off(world: World, member: str) -> None:
    """The log names it once, and sweeps handle all others."""
    world.edge.client.zadd(Shard().due, {member: 1})
    world.broker_is_up = False
    world.start("s1")
    world.broker_is_up = True
    thread = SweeperThread(
        world.sweeper, world.edge, settings=world.settings, clock=world.clock, announce=None
    )
    with capture_logs() as said:
        for _ in range(60):
            world.clock.advance(1)
            world.edge.run(thread.round(Shard()))
    assert [line["item"] for line in said] == [member]
    assert [message.step for message in world.sent][:1] == ["a"]
    assert world.edge.client.zscore(Shard().due, member) > world.clock.now_ms()


@pytest.mark.parametrize("given", [uuid.uuid4(), 42, *ODD_IDS])
def test_an_id_is_text_a_uuid_or_a_number(given: object) -> None:
    """Celery's users pass all of them."""
    assert ids.checked_id(given) == str(given)


@pytest.mark.parametrize("given", BAD_IDS, ids=ascii)
def test_an_id_that_cannot_be_used_is_refused(given: object) -> None:
    """The message shows it in plain ASCII, which no terminal interprets."""
    with pytest.raises(InvalidInput, match="a task id is") as caught:
        ids.checked_id(given)
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", BAD_QUEUES, ids=ascii)
def test_no_queue_has_the_name_of_another_key(name: str) -> None:
    """A queue is a list under its name, so a message could land in a saga's log."""
    step = WorkflowBuilder("odd").add_step("a", "w", queue=name)
    assert any("queue" in error for error in step.errors)
    with pytest.raises(InvalidWorkflow, match="queue"):
        task("shop.charge", queue=name)
    call = {"task": "shop.charge", "queue": name}
    undo = WorkflowBuilder("odd").add_step("a", call, compensation=call)
    assert len([error for error in undo.errors if "queue" in error]) == 2
    with pytest.raises(InvalidInput, match="queue"):
        worker("tests.ids.odd", queue=name)(lambda context: None)


@pytest.mark.parametrize("name", ["io", "shop.orders", "mail queue", "a:b", "_own", "mandarin"])
def test_other_names_are_good_for_a_queue(name: str) -> None:
    """A team keeps the names of its queues."""
    assert queue_flaw(name) == ""


def test_a_stored_definition_cannot_send_into_another_key() -> None:
    """Older definitions may have such a queue: the step fails, and nothing is sent."""
    app = Celery("odd", broker="memory://", set_as_current=False)
    names = {"saga_id": "s", "kind": Kind.RUN, "step": "a", "attempt": 1, "task": "w"}
    odd = Message(**names, queue="ma:{s00}:log:victim", version="v", sent_ms=1)  # type: ignore[arg-type]
    assert Letters(app, Settings())._make(odd) is None
    with pytest.raises(Unsendable, match="belongs to a key"):
        Courier(app)(Publish((odd,)))


def test_a_worker_does_not_consume_another_key() -> None:
    """It would empty that list, message by message."""
    app = Celery("odd", set_as_current=False)
    app.amqp.queues.select(["io", "ma:{s00}:log:victim"])
    with pytest.raises(InvalidInput, match="to consume the queue 'ma:"):
        _check_queues(app)
