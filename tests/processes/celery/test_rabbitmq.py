"""Are sagas on Redis as safe and as quick with RabbitMQ as their broker?

On a node of the module's own, with a worker of a team's app, which has `attach`, and one of the
package's own app.  A machine without ``rabbitmq-server`` fails.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from multiagents import Workflow, WorkflowBuilder, task
from multiagents.cli.doctor import broker
from multiagents.core.settings import Settings
from multiagents.core.states import Kind
from multiagents.devserver.server import EmbeddedServer
from multiagents.engine.messages import Message, Publish
from multiagents.engine.queue_heads import Backlog, QueueHead
from multiagents.hosting.app import make_app
from multiagents.hosting.runtime import attach
from multiagents.hosting.saga_tasks import Courier
from multiagents.storage.client import MAIN_TIMEOUT_S
from tests.support.celery_rig import TEAM, CeleryRig, after_work, plain
from tests.support.kill_rig import LEASE_S, check_recoveries, second_starts
from tests.support.processes import Worker, wait_for
from tests.support.rabbit import Rabbit

pytestmark = [pytest.mark.processes, pytest.mark.rabbitmq]

DATABASE = 15
SAGAS = 8
"""At work in a worker that is killed."""
STEADY, URGENT, DOOMED, UNHEARD = "steady", "urgent", "doomed", "unheard"
DEADLINE_S = 40.0
CONF = {
    "imports": ["tests.support.half_two"],
    "task_queues": {
        TEAM: {},
        "io": {},
        STEADY: {"queue_arguments": {"x-queue-type": "quorum"}},
        URGENT: {"max_priority": 9},
    },
}
"""Half of the functions, and queues that only the team's workers can declare."""


class RabbitRig(CeleryRig):
    """Sagas on Redis, messages on RabbitMQ."""

    broker: Rabbit

    def team_worker(self) -> Worker:
        """A worker of the team's app, with half of the functions."""
        conf = {"broker_url": self.broker.url, **CONF}
        queues = ",".join((TEAM, "io", STEADY, URGENT))
        return self.team("-c", "2", "-Q", queues, conf=conf)

    def own_worker(self, *args: str) -> Worker:
        """A worker of the package's own app, with the other half."""
        return self.worker(
            *args, imports="tests.support.half_one", CELERY_BROKER_URL=self.broker.url
        )

    def all_settled(self, saga_ids: list[str]) -> set[str]:
        """The states in which they ended; no step was begun twice."""
        states = {self.wait_settled(each, DEADLINE_S)["state"] for each in saga_ids}
        assert [fault for each in saga_ids for fault in second_starts(self, each)] == []
        return states


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rabbit]:
    with Rabbit(tmp_path_factory.mktemp("rabbit")) as node:
        yield node


@pytest.fixture(scope="module")
def rig(
    rabbit: Rabbit, server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RabbitRig]:
    rig = RabbitRig(server.url, DATABASE, tmp_path_factory.mktemp("rig"))
    rig.broker = rabbit
    rig.app.conf.broker_url = rabbit.url
    yield rig
    rig.close()


@pytest.fixture(scope="module")
def pair(rig: RabbitRig) -> Iterator[list[Worker]]:
    """A worker of each app; both consume the queue ``io``."""
    with rig.team_worker() as team, rig.own_worker("-Q", "io") as own:
        yield [team.wait_ready(), own.wait_ready()]


def flow(*steps: tuple[str, Any], **options: Any) -> Workflow:
    made = WorkflowBuilder(f"rabbit_{uuid4().hex[:8]}")
    for name, target in steps:
        made.add_step(name, target, **(options if name == "two" else {}))
    return made.build()


# ---- with two workers ----


def test_sagas_complete_and_are_compensated(rig: RabbitRig, pair: list[Worker]) -> None:
    """Steps of both kinds, on several queues."""
    both = flow(("one", "kp_do"), ("two", plain("work")), ("three", "kp_do"))
    done = [rig.begin(both) for _ in range(6)]
    failing = [rig.begin(after_work("kp_fail")) for _ in range(3)]
    assert rig.all_settled(done) == {"completed"}
    assert rig.all_settled(failing) == {"compensated"}
    assert all(len(rig.runs(saga_id, "work")) == 1 for saga_id in (*done, *failing))
    assert all(len(rig.runs(saga_id, "undo")) == 2 for saga_id in failing)


def test_a_step_that_a_worker_lacks_is_given_back(rig: RabbitRig, pair: list[Worker]) -> None:
    """RabbitMQ hands out in turn, so both workers get messages for functions of the other."""
    halves = flow(("one", "half_reserve"), ("two", "half_charge"), ("three", "half_reserve"))
    began = time.monotonic()
    assert rig.all_settled([rig.begin(halves) for _ in range(6)]) == {"completed"}
    assert time.monotonic() - began < DEADLINE_S / 2
    assert any("gives its steps back" in worker.log for worker in pair)


def test_queues_of_other_types_carry_steps(rig: RabbitRig, pair: list[Worker]) -> None:
    """A quorum queue and one with priorities, which the client that starts them cannot declare."""
    began = time.monotonic()
    for target in ("kp_do", task("team.work")):
        flows = [flow(("two", target), queue=name) for name in (STEADY, URGENT, STEADY)]
        assert rig.all_settled([rig.begin(each) for each in flows]) == {"completed"}
    assert time.monotonic() - began < LEASE_S
    with rig.app.connection_for_write() as connection:
        channel = connection.channel()
        channel.queue_declare("io", durable=True, auto_delete=False)
        with pytest.raises(connection.channel_errors, match="x-queue-type"):
            channel.queue_declare(STEADY, durable=True, auto_delete=False)


def test_steps_of_a_killed_worker_go_on_after_a_lease(rig: RabbitRig, pair: list[Worker]) -> None:
    """kill -9 in the midst of several steps; another worker begins them again, each once."""
    doomed = flow(("two", "kp_gate"), ("three", "kp_do"), queue=DOOMED)
    with rig.own_worker("-P", "threads", "-c", str(SAGAS), "-Q", DOOMED) as victim:
        victim.wait_ready()
        sagas = [rig.begin(doomed, gates={"1": "never"}) for _ in range(SAGAS)]
        for saga_id in sagas:
            rig.wait_effect(saga_id, "run", step="two")
        victim.kill()
        died = time.time()
        rig.app.control.add_consumer(DOOMED, destination=[pair[1].name])
        assert rig.all_settled(sagas) == {"completed"}
    check_recoveries("RabbitMQ, killed", [rig.ended_at(each) - died for each in sagas])


def test_explain_and_doctor_say_what_rabbitmq_knows(rig: RabbitRig, pair: list[Worker]) -> None:
    """And nothing from a process whose broker is another one; no password is shown."""
    waiting = flow(("one", task("team.work", queue=UNHEARD, timeout_s=600)))
    sagas = [rig.begin(waiting) for _ in range(2)]
    reason = rig.runtime.call("explain", sagas[0])["reasons"][0]
    assert "2 messages wait there" in reason["text"]
    settings = Settings(redis_url=rig.url)
    elsewhere = attach(make_app(settings), settings)
    reason = elsewhere.call("explain", sagas[0])["reasons"][0]
    assert "cannot be read from here" in reason["text"]
    (found,) = broker.of_broker(rig.app, rig.runtime.settings)
    assert (found.name, found.status) == ("broker", "ok")
    assert re.search(r"amqp://guest:\*\*@127\.0\.0\.1", found.message)
    elsewhere.edge.close()


def test_a_client_with_another_broker_starts_sagas_a_lease_late(
    rig: RabbitRig, pair: list[Worker]
) -> None:
    """What it sends goes nowhere; a worker's sweep sends it again."""
    settings = Settings(redis_url=rig.url, lease_s=LEASE_S)
    elsewhere = attach(make_app(settings), settings)
    began = time.monotonic()
    saga_id = elsewhere.call("start", flow(("two", "kp_do")), {})
    assert rig.all_settled([saga_id]) == {"completed"}
    assert time.monotonic() - began < 2 * LEASE_S
    elsewhere.edge.close()


# ---- what the sweeps do ----


def letter(queue: str) -> Message:
    return Message("s1", Kind.RUN, "a", 1, "kp_do", queue, "v1", 123)


def test_a_queue_says_how_much_waits_in_it(rig: RabbitRig) -> None:
    """Of all priorities together; nothing waits in one that nobody has declared."""
    courier = Courier(rig.app, hasty=True)
    assert courier(QueueHead("undeclared", None)) == Backlog(0, is_whole=True)
    assert courier(Publish((letter("looked-at"),))) is True
    for priority in (None, 3):
        assert courier(QueueHead("looked-at", priority)) == Backlog(1, is_whole=True)
    assert courier(QueueHead("looked-at", None, "redis")) == Backlog(None)
    courier._broker.note()


def test_a_message_that_was_lost_is_sent_again_after_one_lease(
    rig: RabbitRig, pair: list[Worker]
) -> None:
    """As on Redis: its queue is empty, so it does not wait there (E10)."""
    with rig.app.connection_for_write() as connection:
        channel = connection.channel()
        rig.begin(flow(("two", "kp_do"), queue="lossy"))
        assert channel.queue_purge("lossy") == 1
        began = time.monotonic()
        wait_for(lambda: _waiting(channel, "lossy"), DEADLINE_S, "the message")
        assert time.monotonic() - began < 2 * LEASE_S - 0.2


def test_a_sweep_does_not_wait_for_a_broker_that_is_silent(rig: RabbitRig) -> None:
    """Whether it was connected before or not; it goes on when the broker does."""
    known, fresh = (Courier(rig.app, hasty=True) for _ in range(2))
    assert known(Publish((letter("silent"),))) is True
    assert known(QueueHead("silent", None)) == Backlog(1, is_whole=True)
    rig.broker.signal(signal.SIGSTOP)
    try:
        for courier in (known, fresh):
            began = time.monotonic()
            assert courier(QueueHead("silent", None)) == Backlog(None)
            assert courier(Publish((letter("silent"),))) is False
            assert time.monotonic() - began < 2 * MAIN_TIMEOUT_S
    finally:
        rig.broker.signal(signal.SIGCONT)
    for courier in (known, fresh):
        wait_for(partial(courier, Publish((letter("silent"),))), DEADLINE_S, "a message to be sent")
    assert fresh(QueueHead("silent", None)) == Backlog(3, is_whole=True)
    known._broker.note()
    fresh._broker.note()


def _waiting(channel: Any, queue: str) -> int:
    return int(channel.queue_declare(queue, passive=True).message_count)


# ---- the last: it restarts the node ----


def test_sagas_go_on_after_the_broker_was_restarted(rig: RabbitRig, pair: list[Worker]) -> None:
    """What ends meanwhile is kept, what is to be sent is sent then; what waited still waits."""
    courier = Courier(rig.app, hasty=True)
    assert courier(Publish((letter("kept"),))) is True
    underway = (
        WorkflowBuilder("underway")
        .add_step("one", "kp_do")
        .add_step("two", "kp_gate")
        .add_step("three", "kp_do", queue=TEAM)
        .add_step("four", plain("work"))
        .build()
    )
    sagas = [rig.begin(underway, gates={"1": "restarted"}) for _ in range(2)]
    for saga_id in sagas:
        rig.wait_effect(saga_id, "run", step="two")
    rig.broker.stop()
    rig.open("restarted")
    for saga_id in sagas:
        rig.wait_effect(saga_id, "ran", step="two")
    assert courier(QueueHead("kept", None)) == Backlog(None)
    rig.broker.start()
    wait_for(lambda: courier(QueueHead("kept", None)).length, DEADLINE_S, "what was kept")
    assert courier(Publish((letter("kept"),))) is True
    assert courier(QueueHead("kept", None)) == Backlog(2, is_whole=True)
    courier._broker.note()
    assert rig.all_settled(sagas) == {"completed"}
    assert all(len(rig.runs(saga_id, "work")) == 1 for saga_id in sagas)
    assert rig.all_settled([rig.begin(underway) for _ in range(2)]) == {"completed"}
    assert [worker.process.poll() for worker in pair] == [None, None]
