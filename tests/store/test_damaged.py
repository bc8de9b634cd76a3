"""Is a damaged saga reported and removable, without harm to other sagas?

The keys of a damaged saga are partly missing, unreadable or of another type.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from structlog.testing import capture_logs

from multiagents.core.clock import FakeClock
from multiagents.core.exceptions import DamagedSaga, NotAllowed, UnknownSaga
from multiagents.core.ports import WorkerInfo
from multiagents.core.settings import Settings
from multiagents.engine.catalog import Catalog
from multiagents.engine.messages import Publish
from multiagents.engine.queue_heads import Backlog, QueueHead
from multiagents.hosting.assembly import Host
from multiagents.hosting.sweeper_thread import SweeperThread
from multiagents.storage.client import Edge
from multiagents.storage.definitions import collect
from multiagents.storage.failures import stuck
from multiagents.storage.keys import SagaKeys, Shard, due_definitions
from multiagents.workflows.step import Step
from multiagents.workflows.workflow import Workflow

FLOW = Workflow(name="pair", steps=(Step(name="a", worker="w"),))
BAD, GOOD = SagaKeys("bad"), SagaKeys("good")
SHARD = Shard(0)
Damage = Callable[[Any], Any]

DAMAGES: dict[str, tuple[Damage, str]] = {
    "half a start": (lambda c: c.hdel(BAD.saga, "v", "c", "h"), "hash has no version"),
    "no hash": (lambda c: c.delete(BAD.saga), "hash is missing"),
    "no log": (lambda c: c.delete(BAD.log), "log is missing"),
    "no data": (lambda c: c.delete(BAD.data), "data is missing"),
    "a short log": (
        lambda c: c.hset(BAD.saga, "c", 9),
        "log has 1 entries, and 9 were decided over",
    ),
    "work of another type": (
        lambda c: (c.delete(BAD.work), c.set(BAD.work, "x")),
        "work is a string, and has to be a hash",
    ),
    "ids of another type": (
        lambda c: (c.delete(BAD.ids), c.hset(BAD.ids, "x", 1)),
        "ids is a hash, and has to be a set",
    ),
    "a hash of another type": (
        lambda c: (c.delete(BAD.saga), c.rpush(BAD.saga, "x")),
        "hash is a list, and has to be a hash",
    ),
    "an unreadable state": (lambda c: c.hset(BAD.saga, "h", "[1,"), "cannot be read"),
    "a definition that is gone": (lambda c: c.hset(BAD.saga, "w", "none"), "is not stored"),
}


class Office:
    """A service over a real server, with a sound saga and one to damage."""

    def __init__(self, url: str) -> None:
        self.clock = FakeClock()
        self.settings = Settings(redis_url=url)
        catalog = Catalog(self.clock)
        catalog.add_local(WorkerInfo("w"))
        self.edge = Edge(url, perform=self._perform)
        self.host = Host(
            self.edge,
            settings=self.settings,
            clock=self.clock,
            catalog=catalog,
            check_input=lambda given, limit: json.dumps(given),
        )
        for saga_id in (BAD.id, GOOD.id):
            self.call("start", FLOW, {}, task_id=saga_id, tags=["red"])

    def call(self, operation: str, *args: Any, **options: Any) -> Any:
        return self.host.call(operation, *args, **options)

    def _perform(self, effect: Any) -> Any:
        if isinstance(effect, QueueHead):
            return Backlog(0)
        return isinstance(effect, Publish)


@pytest.fixture
def office(redis_url: str) -> Iterator[Office]:
    found = Office(redis_url)
    yield found
    found.edge.close()


@pytest.fixture(params=DAMAGES)
def damaged(request: pytest.FixtureRequest, office: Office) -> tuple[Office, str]:
    """An office with a damaged saga, and the text about it."""
    damage, says = DAMAGES[request.param]
    damage(office.edge.client)
    return office, says


def test_whoever_asks_for_a_damaged_saga_is_told_what_is_damaged_and_what_to_do(
    damaged: tuple[Office, str],
) -> None:
    """The sound saga stays readable."""
    office, says = damaged
    for operation in ("get", "explain", "history"):
        with pytest.raises(DamagedSaga, match=says) as raised:
            office.call(operation, BAD.id)
        assert "multiagents remove bad" in str(raised.value)
        office.call(operation, GOOD.id)


def test_a_list_has_a_row_for_a_damaged_saga(damaged: tuple[Office, str]) -> None:
    """A list by tag has it, too; a list by state omits it."""
    office, says = damaged
    for given in ({}, {"tag": "red"}, {"workflow": "pair"}):
        rows = {row["transaction_id"]: row for row in office.call("list", **given)}
        assert {name: row["state"] for name, row in rows.items()} == {
            "bad": "damaged",
            "good": "running",
        }
        assert says in "; ".join(rows["bad"]["attention"])
        assert rows["bad"].keys() == rows["good"].keys()
    assert [row["transaction_id"] for row in office.call("list", state="running")] == ["good"]


def test_dead_letters_and_sweeps_go_on_beside_a_damaged_saga(damaged: tuple[Office, str]) -> None:
    """The sound saga moves, and the log says what cannot be done for the other."""
    office, _ = damaged
    client = office.edge.client
    client.zadd(SHARD.dead_letters, {"run|a|pair|bad": 5})
    assert office.call("dead_letters") == []
    assert office.call("reindex_dead_letters")["removed"] in (0, 1)
    client.zadd(SHARD.due, {"d|bad": 1, "x|bad": 2, "t|bad|deadline": 3, "d|good": 4})
    thread = SweeperThread(
        office.host.sweeper,
        office.edge,
        settings=office.settings,
        clock=office.clock,
        announce=None,
    )
    with capture_logs():
        office.clock.advance(3)
        thread.once()
    # The sound one's command is at the broker, so its next look comes after a lease.
    assert client.zscore(SHARD.due, "o|good|o:run:a:1") > office.clock.now_ms() + 10_000


def test_a_damaged_saga_is_taken_away_whole_and_its_key_starts_a_new_one(
    damaged: tuple[Office, str],
) -> None:
    """All its keys, indexes and due members go, and no other saga's."""
    office, says = damaged
    client = office.edge.client
    client.zadd(SHARD.due, {"d|bad": 1, "l|bad|run|a|1|aa": 2, "d|bad-2": 3, "t|bad|deadline": 4})
    client.zadd(SHARD.dead_letters, {"run|a|pair|bad": 5, "run|a|pair|too-bad": 5})
    client.zadd(SHARD.attention, {"bad": 5})
    client.hset(SHARD.aliases, mapping={"second": "bad", "other": "good"})
    with capture_logs() as logs:
        removed = office.call("remove", BAD.id, by="ada", reason="by hand")
    assert says in "; ".join(removed["problems"])
    assert (logs[0]["saga"], logs[0]["by"], logs[0]["reason"]) == ("bad", "ada", "by hand")
    assert client.keys("*:bad") == []
    for key in client.keys("ma:*"):
        if client.type(key) == b"zset":
            members = {member.decode() for member in client.zrange(key, 0, -1)}
            assert not {each for each in members if "bad" in each.split("|")}
    assert client.hgetall(SHARD.aliases) == {b"other": b"good"}
    assert client.zscore(SHARD.due, "d|bad-2") == 3
    assert client.zscore(SHARD.dead_letters, "run|a|pair|too-bad") == 5
    with pytest.raises(UnknownSaga):
        office.call("get", BAD.id)
    assert office.call("start", FLOW, {}, task_id=BAD.id) == BAD.id
    assert office.call("get", BAD.id)["state"] == "running"


def test_the_definition_of_a_removed_saga_goes_with_it(damaged: tuple[Office, str]) -> None:
    """The definition stays if another saga uses it."""
    office, _ = damaged
    definitions = office.edge.client.hkeys
    before = definitions(SHARD.definitions)
    with capture_logs():
        office.call("remove", BAD.id)
        look(office)
        assert definitions(SHARD.definitions) == before
        office.edge.client.delete(GOOD.log)
        office.call("remove", GOOD.id)
        look(office)
    assert definitions(SHARD.definitions) == []


def look(office: Office) -> None:
    """Let a sweep look for unused definitions."""
    office.clock.advance(office.settings.lease_s + 1)
    lease_ms = office.settings.lease_ms
    office.edge.run(collect(SHARD, clock_ms=office.clock.now_ms, lease_ms=lease_ms))
    assert office.edge.client.zscore(SHARD.due, due_definitions(SHARD)) is not None


def test_a_start_under_the_id_of_a_damaged_saga_says_so(damaged: tuple[Office, str]) -> None:
    """The start neither joins the saga nor overwrites its rest."""
    office, says = damaged
    before = sorted(office.edge.client.keys("*:bad"))
    with pytest.raises(DamagedSaga, match=says):
        office.call("start", FLOW, {}, task_id=BAD.id)
    assert sorted(office.edge.client.keys("*:bad")) == before


def test_a_saga_that_is_whole_is_not_removed(office: Office) -> None:
    """The error names the action that ends it."""
    with pytest.raises(NotAllowed, match="terminate"):
        office.call("remove", GOOD.id)
    assert office.call("get", GOOD.id)["state"] == "running"
    with pytest.raises(UnknownSaga):
        office.call("remove", "nobody")


def test_what_is_listed_and_gone_is_taken_off_the_lists(office: Office) -> None:
    """An eviction may have removed it."""
    client = office.edge.client
    client.delete(*client.keys("*:bad"))
    assert office.call("remove", BAD.id)["keys"] == 0
    assert [row["transaction_id"] for row in office.call("list")] == ["good"]
    assert client.zscore(SHARD.state("running"), "bad") is None


def test_a_name_with_signs_of_a_pattern_takes_no_other_with_it(office: Office) -> None:
    """An id is taken literally."""
    client = office.edge.client
    for saga_id in ("b*d", "b?d"):
        office.call("start", FLOW, {}, task_id=saga_id)
    client.delete(SagaKeys("b*d").log)
    office.call("remove", "b*d")
    assert client.exists(BAD.saga)
    due = {member.decode() for member in client.zrange(SHARD.due, 0, -1)}
    due.remove(due_definitions(SHARD))
    assert {member.split("|")[1] for member in due} == {"bad", "good", "b?d"}


def test_a_decision_on_many_dead_letters_passes_over_a_damaged_saga(office: Office) -> None:
    """The action gives the reason and goes on with the others."""
    client = office.edge.client
    letters = [
        {
            "transaction_id": saga_id,
            "kind": "step",
            "step": "a",
            "parked_at": "2026-01-01T00:00:00.000+00:00",
        }
        for saga_id in (BAD.id, GOOD.id)
    ]
    client.delete(BAD.saga)
    done = office.call("settle_dead_letters", "retry", letters=letters)
    assert "is damaged" in done[0]["problem"]
    assert "damaged" not in done[1]["problem"]


def test_what_fails_again_and_again_is_counted_beside_the_due_set(office: Office) -> None:
    """The counts have the reason, for `doctor`."""
    client = office.edge.client
    client.hset(BAD.saga, "w", "none")
    thread = SweeperThread(
        office.host.sweeper,
        office.edge,
        settings=office.settings,
        clock=office.clock,
        announce=None,
    )
    with capture_logs():
        for seconds in (16, 3):
            office.clock.advance(seconds)
            thread.once()
    ((member, (failures, _, why)),) = office.edge.execute(stuck(SHARD)).items()
    assert (member, failures) == ("o|bad|o:run:a:1", 2)
    assert "definition none" in why
    assert 0 < client.ttl(SHARD.stuck) <= 600


def test_an_error_of_a_damaged_saga_survives_pickling() -> None:
    """This holds for every error of this package."""
    import pickle

    error = DamagedSaga("s", ("its log is missing",))
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.problems) == (str(error), error.problems)


def test_examining_writes_nothing(redis_url: str, office: Office) -> None:
    """`doctor` examines many sagas."""
    with redis.Redis.from_url(redis_url) as client:
        before = {key: client.dump(key) for key in client.keys("*")}
        office.call("get", GOOD.id)
        assert office.edge.run(office.host.service.damaged([0], each=10)) == {}
        assert {key: client.dump(key) for key in client.keys("*")} == before


def test_a_saga_that_comes_and_goes_while_it_is_looked_for_is_not_damaged(office: Office) -> None:
    """Its definition may go between any two calls of the reader."""
    client, seen = office.edge.client, 0

    def ask(effect: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == 2:  # after the definition was found missing
            office.call("start", FLOW, {}, task_id="late")
        if seen == 4:
            client.flushdb()
        return office.edge.execute(effect)

    def look() -> None:
        flow = office.host.coordinator.repository.current("late")
        effect = flow.send(None)
        while True:
            effect = flow.send(ask(effect))

    with pytest.raises(UnknownSaga, match="no saga 'late'"):
        look()
