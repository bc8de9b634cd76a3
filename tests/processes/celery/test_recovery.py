"""Do sagas move, end and cost what they should on real workers?

Time-outs in every pool, timers, pause, deadlines, life without a sweeper, the price of idling and
a server that is restarted.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from multiagents.core.names import COMPENSATE
from multiagents.devserver.server import EmbeddedServer
from tests.support.kill_rig import LEASE_S, Rig, second_starts
from tests.support.processes import wait_for

pytestmark = pytest.mark.processes

NO_SWEEPER = "tests.support.kill_no_sweeper"
TIMER_LATE_S = 1.0
"""A due item starts at most so late (settings.sweep_s)."""
SLACK_S = 1.2
"""What a loaded machine may add to any time that is measured here."""
START_S = 1.5
IDLE_S = 6.0
"""For how long idling is measured, once the worker has settled."""
MOST_IDLE_COMMANDS = 2.0
KOMBU = {"brpop", "publish", "subscribe", "psubscribe", "unsubscribe", "ping"}
KOMBU |= {"sadd", "multi", "exec", "zadd", "script|exists"}
TEST = {"config|resetstat", "info", "client|setinfo", "client|setname", "select", "hello"}
INSIDE = {"hmget", "zrangebyscore"}
"""Commands that only scripts run: they cost no round trip."""
DATABASE = 10


@pytest.fixture(scope="module")
def prefork(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A database with one prefork worker, for all tests that leave it as it was."""
    rig = Rig(server.url, DATABASE + 1, tmp_path_factory.mktemp("prefork"))
    with rig.worker("-c", "4") as worker:
        worker.wait_ready()
        yield rig
    rig.close()


def times(rig: Rig, saga_id: str, kind: str, step: str = "two") -> list[float]:
    """When something happened to a step, Unix time."""
    return [
        datetime.fromisoformat(row["at"]).timestamp()
        for row in rig.history(saga_id)
        if (row["type"], row["step"]) == (kind, step)
    ]


def overdue(rig: Rig, saga_id: str) -> list[float]:
    """How long each attempt of the second step took that ended as timed out."""
    rows = [row for row in rig.history(saga_id) if row["type"] == "step_failed"]
    assert {row["data"]["error"]["type"] for row in rows} == {"StepTimeout"}
    told = {row["data"]["error"]["message"] for row in rows}
    assert all(re.search(r"ran longer than its timeout_s of [\d.]+ s\b", text) for text in told)
    begun = times(rig, saga_id, "step_claimed")
    return [
        end - begin for begin, end in zip(begun, times(rig, saga_id, "step_failed"), strict=False)
    ]


# ---- time-outs ----


@pytest.mark.alone
def test_a_plain_function_gets_a_soft_limit_first(prefork: Rig) -> None:
    """SoftTimeLimitExceeded is raised in it; the step is retried, then undone, as timed out."""
    saga_id = prefork.start("kp_hangs")
    saga = prefork.wait_settled(saga_id)
    assert (saga["state"], saga["error"]["type"]) == ("compensated", "StepTimeout")
    assert [effect.attempt for effect in prefork.effects(saga_id, "soft")] == [1, 2]
    assert all(1.0 <= took_s < 1.0 + SLACK_S for took_s in overdue(prefork, saga_id))


@pytest.mark.alone
def test_a_function_that_ignores_its_soft_limit_ends_with_its_child(prefork: Rig) -> None:
    """A moment after the soft limit the child is killed, the time-out recorded before."""
    saga_id = prefork.start("kp_hangs", stubborn=True)
    saga = prefork.wait_settled(saga_id)
    assert (saga["state"], saga["error"]["type"]) == ("compensated", "StepTimeout")
    runs = [effect for effect in prefork.effects(saga_id, "run") if effect.step == "two"]
    assert len({effect.pid for effect in runs}) == len(runs) == 2
    assert all(2.0 <= took_s < 2.5 + SLACK_S for took_s in overdue(prefork, saga_id))


@pytest.mark.alone
def test_an_async_function_is_cancelled_and_cleans_up(prefork: Rig) -> None:
    """Its ``finally`` runs, and its process lives on."""
    saga_id = prefork.start("kp_async_hangs")
    saga = prefork.wait_settled(saga_id)
    assert (saga["state"], saga["error"]["type"]) == ("compensated", "StepTimeout")
    assert [effect.attempt for effect in prefork.effects(saga_id, "cleaned")] == [1, 2]
    assert all(1.0 <= took_s < 1.0 + SLACK_S for took_s in overdue(prefork, saga_id))


@pytest.mark.alone
def test_a_thread_of_an_async_function_ends_with_its_child(prefork: Rig) -> None:
    """Cancelling the coroutine does not stop it: what has not ended a second later is killed."""
    saga_id = prefork.start("kp_thread_hangs")
    saga = prefork.wait_settled(saga_id)
    prefork.open(f"never-{saga_id}")
    assert (saga["state"], saga["error"]["type"]) == ("compensated", "StepTimeout")
    runs = [effect for effect in prefork.effects(saga_id, "run") if effect.step == "two"]
    assert len({effect.pid for effect in runs}) == len(runs) == 2
    assert all(2.0 <= took_s < 2.0 + SLACK_S for took_s in overdue(prefork, saga_id))
    assert prefork.effects(saga_id, "ran") == []


def test_a_function_that_panics_has_failed_and_holds_no_lease(prefork: Rig) -> None:
    """What is no `Exception` ends an attempt as well, at once, and leaves its child alone."""
    saga_id = prefork.start("kp_panics")
    saga = prefork.wait_settled(saga_id)
    told = "worker 'kp_panic' raised Panic: index out of bounds"
    assert (saga["state"], saga["error"]["message"]) == ("compensated", told)


@pytest.mark.alone
def test_a_thread_that_overruns_is_given_up_and_its_late_end_undone(rig: Rig) -> None:
    """Nothing can end a thread: the attempt is over at its time-out, its effect is not.

    So with the thread of an async function, which has no result of the step.
    """
    with rig.worker("-P", "threads", "-c", "6") as worker:
        worker.wait_ready()
        plain, threaded, panic = map(rig.start, ("kp_hangs", "kp_thread_hangs", "kp_panics"))
        assert rig.wait_settled(panic)["error"]["message"].endswith("Panic: index out of bounds")
        for saga_id, grace_s in ((plain, 0.0), (threaded, 1.0)):
            saga = rig.wait_settled(saga_id)
            assert (saga["state"], saga["error"]["type"]) == ("compensated", "StepTimeout")
            least_s = 1.0 + grace_s
            assert all(least_s <= took_s < least_s + SLACK_S for took_s in overdue(rig, saga_id))
            rig.open(f"never-{saga_id}")
        late = {("step_succeeded", "two", 1), ("step_succeeded", "two", 2)}
        wait_for(lambda: late <= set(rig.events(plain)), 10.0, "late reports")
        wait_for(lambda: len(late_effects(rig, threaded)) == 2, 10.0, "late effects")
        for saga_id in (plain, threaded):
            saga = rig.wait_settled(saga_id)
            assert (saga["state"], saga["needs_attention"]) == ("compensated", True)
            undone = [effect for effect in rig.effects(saga_id, "undo") if effect.step == "two"]
            assert undone[-1].at > max(effect.at for effect in rig.effects(saga_id, "ran"))


def late_effects(rig: Rig, saga_id: str) -> list[str]:
    """What ended late of the threads that attempts had left at work."""
    errors = [row["data"].get("error") or {} for row in rig.history(saga_id)]
    return [error["message"] for error in errors if error.get("type") == "LateEffect"]


@pytest.mark.alone
def test_a_solo_worker_says_at_once_that_its_step_is_overdue(rig: Rig) -> None:
    """It can do nothing else meanwhile, and goes on when its function returns."""
    with rig.worker("-P", "solo") as worker:
        worker.wait_ready()
        saga_id = rig.start("kp_hangs")
        wait_for(lambda: times(rig, saga_id, "step_failed"), 10.0, "time-out")
        assert all(1.0 <= took_s < 1.0 + SLACK_S for took_s in overdue(rig, saga_id))
        rig.open(f"never-{saga_id}")
        assert rig.wait_settled(saga_id)["state"] == "completed"
    assert [e.attempt for e in rig.effects(saga_id, "run") if e.step == "two"] == [1, 2]


def test_a_long_step_keeps_its_lease_whenever_it_begins(prefork: Rig) -> None:
    """Children that have done something before hold steps of two leases; none is lost."""
    for saga_id in [prefork.start("kp_completes") for _ in range(12)]:
        prefork.wait_settled(saga_id)
    started = []
    for _ in range(4):
        started.append(prefork.start("kp_long", gates={"1": "long"}))
        _let_pass(0.45)
    _let_pass(2 * LEASE_S)
    prefork.open("long")
    for saga_id in started:
        assert prefork.wait_settled(saga_id)["state"] == "completed"
        assert not times(prefork, saga_id, "step_lost")


# ---- timers ----


def test_retries_follow_their_back_off(prefork: Rig) -> None:
    """The third attempt succeeds; each begins after its delay, and at most a second later."""
    saga_id = prefork.start("kp_flakes")
    assert prefork.wait_settled(saga_id)["result"] == {"attempt": 3}
    begun = times(prefork, saga_id, "step_claimed")
    failed = times(prefork, saga_id, "step_failed")
    waits = [later - end for end, later in zip(failed, begun[1:], strict=True)]
    assert 0.05 <= waits[0] < 0.05 + TIMER_LATE_S + SLACK_S
    assert 0.1 <= waits[1] < 0.1 + TIMER_LATE_S + SLACK_S


def test_a_deadline_turns_a_saga_round(prefork: Rig) -> None:
    """After ``timeout_s`` of the workflow what was done is undone; a running step may end."""
    saga_id = prefork.start("kp_late", gates={"1": "late"})
    wait_for(lambda: prefork.saga(saga_id)["state"] == "compensating", 10.0, "deadline")
    prefork.open("late")
    saga = prefork.wait_settled(saga_id)
    assert (saga["state"], saga["error"]["type"]) == ("compensated", "SagaDeadline")
    assert [effect.step for effect in prefork.effects(saga_id, "undo")] == ["two", "one"]
    (turned,) = [r for r in prefork.history(saga_id) if r["type"] == "saga_compensating"]
    late_s = datetime.fromisoformat(turned["at"]) - datetime.fromisoformat(saga["created_at"])
    assert 1.5 <= late_s.total_seconds() < 1.5 + TIMER_LATE_S + SLACK_S


def test_a_paused_saga_ends_its_running_step_and_waits(prefork: Rig) -> None:
    """A running step may end, no step begins, and a resume continues the saga."""
    saga_id = prefork.start("kp_paced", gates={"1": "paced"})
    prefork.wait_effect(saga_id, "run", step="one")
    assert prefork.runtime.call("pause", saga_id)["state"] == "paused"
    prefork.open("paced")
    wait_for(lambda: prefork.saga(saga_id)["steps"]["one"]["state"] == "succeeded", 10.0)
    wait_for(lambda: prefork.open_ends(saga_id) == ["paused"], 10.0, "the commit")
    prefork.runtime.call("resume", saga_id)
    assert prefork.wait_settled(saga_id)["state"] == "completed"
    assert second_starts(prefork, saga_id) == []


# ---- without a sweeper, without continuation ----


@pytest.mark.parametrize("continuation", ["true", "false"])
def test_messages_and_errbacks_alone_bring_a_saga_to_its_end(rig: Rig, continuation: str) -> None:
    """No sweep is needed where nothing is lost: the errback begins the undo."""
    with rig.worker(imports=NO_SWEEPER, MULTIAGENTS_CONTINUATION=continuation) as worker:
        worker.wait_ready()
        good, bad = rig.start("kp_completes"), rig.start("kp_breaks")
        assert rig.wait_settled(good, 5.0)["state"] == "completed"
        assert rig.wait_settled(bad, 5.0)["state"] == "compensated"
        messages = 1 + 1 if continuation == "true" else 2 + 4
        assert worker.log.count("] received") == messages
    assert [effect.step for effect in rig.effects(bad, "undo")] == ["two", "one"]


def test_a_steps_message_names_the_compensation_callback(rig: Rig) -> None:
    """``link_error`` travels with each step: lost children are reported by it."""
    saga_id = rig.start("kp_breaks")
    (message,) = [json.loads(raw) for raw in rig.redis.lrange("io", 0, -1)]
    _, _, embedded = json.loads(base64.b64decode(message["body"]))
    (errback,) = embedded["errbacks"]
    assert errback["task"] == COMPENSATE
    assert errback["args"] == [saga_id, "run", "one", 1]


# ---- what it costs, and an absent server ----


def test_an_idle_worker_asks_for_next_to_nothing(tmp_path: Path) -> None:
    """Two round trips a second at most, beside what kombu does to wait for messages."""
    with EmbeddedServer(tmp_path / "server") as server:
        rig = Rig(server.url, 0, tmp_path)
        with rig.worker(MULTIAGENTS_LEASE_S="15") as worker:
            worker.wait_ready()
            _let_pass(START_S)
            rig.redis.config_resetstat()
            _let_pass(IDLE_S)
            stats = rig.redis.info("commandstats")
        rig.close()
    calls = {name.removeprefix("cmdstat_"): row["calls"] for name, row in stats.items()}
    own = {name: n for name, n in calls.items() if name not in KOMBU | TEST | INSIDE}
    own["hset"] = own.get("hset", 0) - calls.get(
        "hmget", 0
    )  # each sweep's script makes one of both
    assert sum(own.values()) / IDLE_S <= MOST_IDLE_COMMANDS, own


def _let_pass(seconds: float) -> None:
    """Wait until the clock says so: here time itself is the condition."""
    end = time.monotonic() + seconds
    wait_for(lambda: time.monotonic() >= end, 2 * seconds)


def test_sagas_go_on_after_a_restart_of_the_server(tmp_path: Path) -> None:
    """Idle, and with steps at work: all end as they should, none is repeated."""
    with EmbeddedServer(tmp_path / "server") as server:
        rig = Rig(server.url, 0, tmp_path)
        with rig.worker("-P", "threads", "-c", "4") as worker:
            worker.wait_ready()
            server.restart()
            idle = rig.start("kp_completes")
            assert rig.wait_settled(idle)["state"] == "completed"
            busy = [rig.start("kp_long", gates={"1": "up"}) for _ in range(3)]
            for saga_id in busy:
                rig.wait_effect(saga_id, "run", step="two")
            server.restart()
            rig.open("up")
            for saga_id in busy:
                assert rig.wait_settled(saga_id)["state"] == "completed"
                assert second_starts(rig, saga_id) == []
        rig.close()
