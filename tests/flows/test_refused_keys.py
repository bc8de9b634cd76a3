"""What remains if the server refuses a key outside the engine in mid-script?

A queue's list or a result's key may have another type or be forbidden. The saga's own records stay,
and the command is sent once the key is right.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.states import Kind, SagaState
from multiagents.engine.messages import NotTaken
from multiagents.hosting.sweeper_thread import SweeperThread
from multiagents.storage import failures, outbox, outcomes
from multiagents.storage import sagas as store
from multiagents.storage.client import WritesRefused
from multiagents.storage.commit import Letter, StoredResult
from multiagents.storage.keys import Shard, due_dirty, due_lease, due_outbox, shard_of
from multiagents.storage.replies import End
from multiagents.workflows.step import Step, TaskCall
from multiagents.workflows.workflow import Workflow
from tests.flows.test_plain_tasks import Plainly, plain
from tests.support.one_process import KEYS, SAGA, SHARD, step

UNSENT = "0|0"


class Refusing(Plainly):
    """A bench whose queue can become a key of another type."""

    def refuse(self) -> None:
        self.edge.client.delete("queue")
        self.edge.client.hset("queue", "a team's own", "value")

    def put_right(self) -> None:
        self.edge.client.delete("queue")

    def score(self, member: str) -> float | None:
        found: float | None = self.edge.client.zscore(SHARD.due, member)
        return found

    def wait(self, seconds: float) -> None:
        """Let time pass with sweeps, so that no lease gets another term (E9)."""
        self.edge.run(self.sweeper().tick(SHARD))
        while seconds > 0:
            self.clock.advance(min(seconds, 5))
            self.edge.run(self.sweeper().tick(SHARD))
            seconds -= 5

    def swept_after(self, seconds: float) -> None:
        self.wait(seconds)
        self.sweep()


@pytest.fixture
def bench(redis_url: str) -> Iterator[Refusing]:
    found = Refusing(redis_url)
    found.edge.run(found.sweeper().tick(SHARD))
    found.wait(20)
    yield found
    found.edge.close()


def test_a_start_is_recorded_whole_though_its_queue_refuses_the_message(bench: Refusing) -> None:
    """The saga is readable, and begins once the key is right."""
    bench.refuse()
    with capture_logs() as logs:
        bench.start(step("s"))
    assert [each["saga"] for each in logs] == [SAGA]
    assert "WRONGTYPE" in logs[0]["why"]
    assert bench.saga().state is SagaState.RUNNING
    assert bench.work() == {"o:run:s:1": UNSENT}
    due_ms = bench.score(due_outbox(SAGA, "o:run:s:1"))
    assert due_ms == bench.clock.now_ms() + 2000
    bench.put_right()
    bench.swept_after(2.1)
    assert bench.waiting() == 1
    assert bench.take_engine("s").step == "s"


def test_a_second_start_joins_what_the_first_one_recorded(bench: Refusing) -> None:
    """A queue's key makes neither start fail."""
    bench.refuse()
    bench.start(step("s"))
    bench.start(step("s"))
    assert bench.saga().state is SagaState.RUNNING


@pytest.mark.parametrize("remembers", [True, False])
def test_a_report_counts_though_the_next_queue_refuses_its_message(
    bench: Refusing, remembers: bool
) -> None:
    """Claim and lease end, whether the report or a later commit writes the message."""
    bench.start(step("s"), step("t", "s"))
    held = bench.take_engine("s")
    bench.refuse()
    if not remembers:
        bench.forget()
    bench.succeed(held, allowed=False)
    assert bench.work() == {"o:run:t:1": UNSENT}
    assert bench.due() == [due_outbox(SAGA, "o:run:t:1")]
    bench.put_right()
    bench.swept_after(2.1)
    assert bench.take_engine("t").step == "t"


def test_a_plain_task_that_its_queue_refuses_is_sent_when_the_key_is_put_right(
    bench: Refusing,
) -> None:
    """The claim says "not sent", so no worker runs it until the one message (E13)."""
    bench.refuse()
    bench.start(plain("a"), data={"n": 1})
    (claim,) = bench.work().values()
    assert claim.split("|")[3].startswith("-")
    bench.wait(2.1)
    (item,) = bench.edge.run(bench.sweeper().due(SHARD))
    with pytest.raises(NotTaken, match="WRONGTYPE"):
        bench.edge.run(bench.sweeper().handle(item))
    bench.put_right()
    bench.swept_after(2.1)
    bench.swept_after(2.1)
    assert bench.waiting() == 1
    (claim,) = bench.work().values()
    attempt, nonce, deadline, task_id = claim.split("|")
    member = due_lease(SAGA, AttemptRef(Kind.RUN, "a", int(attempt)), nonce)
    assert bench.score(member) == float(deadline)
    assert bench.take() == ("a", [{"n": 1}], {}, task_id)


def test_a_plain_task_whose_step_waits_for_its_data_is_sent_likewise(bench: Refusing) -> None:
    """An undo, or a step with large data, is claimed before the message."""
    bench.start(plain("a"), plain("b", "a", kwargs={"x": "steps.a.result.x"}))
    bench.forget()
    _, _, _, task_id = bench.take()
    attempts = bench.engine.fence(SAGA, task_id)
    bench.forget()
    bench.refuse()
    bench.engine.plain_ended(SAGA, task_id, '{"x": 5}', attempts=attempts)
    bench.put_right()
    bench.swept_after(2.1)
    assert bench.take()[:3] == ("b", [], {"x": 5})


def test_a_plain_task_that_is_refused_for_too_long_is_lost_by_its_time_out(
    bench: Refusing,
) -> None:
    """The step then fails or is retried, by its policy."""
    bench.refuse()
    bench.start(plain("a"))
    bench.swept_after(61)
    assert [entry.type for entry in bench.log()][:3] == ["started", "claimed", "lost"]


def test_a_refused_message_takes_none_of_the_others_with_it(bench: Refusing) -> None:
    """The commands for sound queues are sent."""
    names = ["o:run:x:1", "o:run:y:1"]
    bench.edge.client.hset(KEYS.work, mapping=dict.fromkeys(names, UNSENT))
    bench.edge.client.zadd(SHARD.due, {due_outbox(SAGA, name): 7 for name in names})
    bench.refuse()
    letters = {names[0]: Letter("queue", "x"), names[1]: Letter("other", "y")}
    sent = dict.fromkeys(names, ("5|1", 99))
    done = bench.edge.execute(outbox.published(KEYS, sent, letters))
    assert (done.standing, [each.field for each in done.refused]) == (1, ["o:run:x:1"])
    assert bench.work() == {names[0]: UNSENT, names[1]: "5|1"}
    assert [bench.score(due_outbox(SAGA, name)) for name in names] == [7, 99]
    assert bench.edge.client.lrange("other", 0, -1) == [b"y"]


def test_a_place_goes_to_the_first_command_whose_queue_takes_it(bench: Refusing) -> None:
    """A refused command is withheld as before."""
    held_back = {f"o:run:{name}:1": "5|0" for name in ("x", "y")}
    bench.edge.client.hset(KEYS.work, mapping=held_back)
    bench.refuse()
    queues = ("queue", "other")
    rows = [
        (name, ("6|1", 99), Letter(queue, name))
        for name, queue in zip(held_back, queues, strict=True)
    ]
    assert bench.edge.execute(outbox.hand_on(KEYS, rows)) == 2
    assert bench.work() == {"o:run:x:1": "5|0", "o:run:y:1": "6|1"}


# ---- results ----


@pytest.fixture
def ended(bench: Refusing) -> tuple[Refusing, End]:
    """A saga whose outcome is not delivered yet."""
    bench.delivers = False
    bench.start(step("s"))
    bench.succeed(bench.take_engine("s"))
    data = bench.edge.execute(store.data(KEYS))
    version = bench.edge.execute(store.version(KEYS)) or ""
    log = bench.edge.execute(store.log(KEYS))
    return bench, End(version, data, log, bench.work()["o:end"])


def test_an_end_whose_result_is_refused_is_owed_still(ended: tuple[Refusing, End]) -> None:
    """The log is compressed, and the outcome is delivered once the key is right."""
    bench, end = ended
    bench.edge.client.hset("result", "a", "hash")
    answers = [StoredResult("result", '{"status": "SUCCESS"}', 5), StoredResult("fine", "{}", 0)]
    (refused,) = bench.edge.execute(outcomes.settle(KEYS, end, answers))
    assert (refused.key, refused.reason[:9]) == ("result", "WRONGTYPE")
    assert "o:end" in bench.work()
    assert bench.edge.client.get("fine") == b"{}"
    assert bench.edge.execute(store.log(KEYS)) == end.log
    bench.edge.client.delete("result")
    assert bench.edge.execute(outcomes.settle(KEYS, end, answers)) == 1
    assert bench.work() == {}
    assert 0 < bench.edge.client.ttl("result") <= 5


def test_a_server_that_takes_no_writes_refuses_no_result_by_itself(
    ended: tuple[Refusing, End],
) -> None:
    """The whole server refuses then, and every command waits."""
    reply = [b"o:end", b"result", b"OOM command not allowed when used memory > 'maxmemory'."]
    with pytest.raises(WritesRefused):
        _parse(ended[0], outcomes.settle(KEYS, ended[1]).parse, reply)


def _parse(bench: Refusing, parse: Callable[[Any], Any], reply: Any) -> None:
    """The value an edge makes of this reply."""
    bench.edge._eval = lambda call: reply  # type: ignore[method-assign]  # no server can be so full
    bench.edge.execute(outcomes.settle(KEYS, End("", {}, ())))


# ---- one refused saga, and others ----


def _thread(bench: Refusing) -> SweeperThread:
    return SweeperThread(
        bench.sweeper(), bench.edge, settings=bench.settings, clock=bench.clock, announce=None
    )


def _start(bench: Refusing, saga_id: str, *steps: Step) -> None:
    flow = bench.coordinator.start(
        Workflow(name="w", steps=steps),
        saga_id=saga_id,
        waiting=(saga_id, ""),
        data={"input": "{}", "meta": "{}"},
    )
    bench.edge.run(flow)


def test_a_refused_saga_keeps_no_other_waiting(bench: Refusing) -> None:
    """Any number of refused sagas may precede it; each is logged once."""
    bench.refuse()
    for number in range(30):
        _start(bench, f"bad-{number:02}", step("s"))
    bench.edge.client.zadd(SHARD.due, {"d|gone": bench.clock.now_ms() + 2000})
    thread = _thread(bench)
    with capture_logs() as logs:
        for _ in range(20):
            bench.clock.advance(2.1)
            thread.once()
    assert "d|gone" not in bench.due()
    told = [each for each in logs if each["log_level"] == "error"]
    assert len(told) == 30
    assert all(each["item"].startswith("o|bad-") for each in told)
    assert all(each["at"].startswith("coordinator.py:") for each in told)
    assert all("\n" not in json.dumps(each) for each in told)


def test_what_fails_again_and_again_is_tried_less_often_up_to_a_minute(bench: Refusing) -> None:
    """All sweepers' failures count; an item that is due anew is tried at once."""
    bench.refuse()
    bench.start(step("s"))
    member = due_outbox(SAGA, "o:run:s:1")
    waits = []
    with capture_logs():
        for _ in range(7):
            bench.clock.advance(((bench.score(member) or 0) - bench.clock.now_ms()) / 1000 + 0.001)
            _thread(bench).once()
            waits.append(round(((bench.score(member) or 0) - bench.clock.now_ms()) / 1000))
    assert waits == [2, 4, 8, 16, 32, 60, 60]
    bench.put_right()
    bench.clock.advance(60.1)
    _thread(bench).once()
    assert bench.waiting() == 1


def put_off_due(bench: Refusing, now_ms: int) -> list[int]:
    """Let all due items fail; returns the reply for each."""
    found = []
    while items := bench.edge.execute(store.sweep(SHARD, now_ms, limit=100, lease_ms=10_000)):
        for item in items:
            put_off = failures.put_off(SHARD, item, now_ms=now_ms, why="-")
            found.append(bench.edge.execute(put_off))
    return found


def test_more_failing_items_than_are_counted_are_tried_less_often_too(bench: Refusing) -> None:
    """Each keeps its count; otherwise all would be retried and logged every 2 s."""
    client, now_ms = bench.edge.client, 320_000_000
    client.delete(SHARD.due)
    count = failures.MOST_FAILURES + 50
    client.zadd(SHARD.due, {due_dirty(f"s{n}"): n for n in range(count)})
    first = put_off_due(bench, now_ms)
    assert first == [1] * failures.MOST_FAILURES + [failures.NOT_COUNTED] * 50
    assert client.zcount(SHARD.due, now_ms + 60_000, "+inf") == 50
    assert put_off_due(bench, now_ms + 2000) == [2] * failures.MOST_FAILURES
    assert client.hlen(SHARD.stuck) == failures.MOST_FAILURES


def test_a_count_that_is_old_makes_place(bench: Refusing) -> None:
    """Constant failures would otherwise keep the counts of settled items, too."""
    client, now_ms = bench.edge.client, 320_000_000
    old_ms = now_ms - failures.FAILURES_KEPT_MS - 1
    client.hset(SHARD.stuck, mapping={f"d|s{n}": f"3|{old_ms}|-" for n in range(999)})
    client.hset(SHARD.stuck, "d|s999", f"3|{now_ms}|-")
    client.delete(SHARD.due)
    client.zadd(SHARD.due, {due_dirty("new"): now_ms})
    assert put_off_due(bench, now_ms) == [1]
    assert sorted(client.hkeys(SHARD.stuck)) == [b"d|new", b"d|s999"]


def test_what_has_become_due_anew_is_not_put_off(bench: Refusing) -> None:
    """A slow, failing sweep does not delay newer work."""
    bench.start(step("s"))
    bench.swept_after(20)
    (item,) = [store.Guard(each, "5") for each in bench.due()]
    before = bench.score(item.member)
    put_off = failures.put_off(SHARD, item, now_ms=bench.clock.now_ms(), why="-")
    assert bench.edge.execute(put_off) == 0
    assert bench.score(item.member) == before


def test_the_members_of_a_batch_do_not_share_a_score(bench: Refusing) -> None:
    """Otherwise the last names would never be among the first hundred."""
    members = [f"d|gone-{number:03}" for number in range(150)]
    bench.edge.client.zadd(SHARD.due, dict.fromkeys(members, bench.clock.now_ms()))
    seen: set[str] = set()
    for _ in range(2):
        items = bench.edge.run(bench.sweeper().due(SHARD))
        assert len({item.token for item in items}) == len(items)
        seen |= {item.member for item in items}
        bench.clock.advance(2.05)
    assert seen == set(members)


def test_a_shard_that_cannot_be_read_keeps_no_other_waiting(redis_url: str) -> None:
    """If one shard's due set has another type, the other shards are swept."""
    bench = Refusing(redis_url)
    bench.settings = bench.settings.model_copy(update={"shards": 2})
    bench.coordinator.repository.settings = bench.settings
    gone = next(each for each in map(str, range(99)) if shard_of(each, 2).number == 1)
    bench.edge.client.set(Shard(0).due, "not a zset")
    bench.edge.client.zadd(Shard(1).due, {due_dirty(gone): bench.clock.now_ms()})
    with capture_logs() as logs:
        thread = _thread(bench)
        thread.once()
        thread.once()
    assert not bench.edge.client.exists(Shard(1).due)
    assert len([each for each in logs if each["log_level"] == "error"]) == 1
    bench.edge.close()


def test_a_worker_that_cannot_be_announced_sweeps(bench: Refusing) -> None:
    """A missing announcement keeps no saga waiting."""
    bench.edge.client.zadd(SHARD.due, {"d|gone": bench.clock.now_ms()})
    bench.edge.client.set(SHARD.catalog("fleet"), "not a hash")
    thread = SweeperThread(
        bench.sweeper(),
        bench.edge,
        settings=bench.settings,
        clock=bench.clock,
        announce=lambda: bench.catalog.publish("w", ["io"], []),
    )
    with capture_logs() as logs:
        thread.once()
    assert bench.due() == []
    assert [each["log_level"] for each in logs] == ["error"]


def test_a_task_call_needs_no_queue_to_be_told_of(bench: Refusing) -> None:
    """A call without a direct publish waits for its timeout, and the log says so."""
    bench.refuse()
    bench.start(Step(name="a", worker=TaskCall(task="shop.a", timeout_s=60)))
    bench.coordinator.dispatcher.plain.letter_of = lambda message: None
    bench.wait(2.1)
    (item,) = bench.edge.run(bench.sweeper().due(SHARD))
    with pytest.raises(NotTaken, match="only Celery"):
        bench.edge.run(bench.sweeper().handle(item))
