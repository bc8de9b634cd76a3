"""Can an operator find, read and settle dead letters, with each action recorded?

Sagas are on the real server; no worker brings them into their state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from multiagents import NonRetryableError, Orchestrator, UnknownSaga, register, sagas
from multiagents.core.exceptions import InvalidInput, NotAllowed
from multiagents.core.settings import Settings
from multiagents.event_bus.memory_bus import MemoryEventBus
from multiagents.hosting.runtime import Sagas, runtime_at
from multiagents.storage.keys import Shard
from multiagents.testing.lab import SagaLab
from tests.support.command_line import cli
from tests.support.eager_server import lab_on
from tests.support.letters import order, park_step, park_undo, pivoted

SHARD = Shard(0)


@pytest.fixture
def lab(redis_url: str) -> Iterator[SagaLab]:
    with lab_on(redis_url) as found:
        yield found


@pytest.fixture
def desk(redis_url: str, lab: SagaLab) -> Sagas:
    """The sync face over the lab's server."""
    return Sagas(runtime_at(redis_url))


def index(url: str) -> tuple[set[bytes], set[bytes]]:
    """The members of both indexes: sagas, letters."""
    with redis.Redis.from_url(url) as client:
        keys = (SHARD.attention, SHARD.dead_letters)
        one, other = (set(client.zrange(key, 0, -1)) for key in keys)
    return one, other


def asked(desk: Sagas, saga_id: str) -> list[dict[str, Any]]:
    """The operators' actions in a saga's history."""
    return [event for event in desk.history(saga_id) if event["type"] == "asked"]


# ---- finding ----


def test_a_parked_undo_and_a_parked_step_are_listed_whole(lab: SagaLab, desk: Sagas) -> None:
    """Each has error, attempts, input, age and the saga's state; the oldest comes first."""
    undone = park_undo(lab)
    lab.advance(60)
    stepped = park_step(lab)
    first, second = desk.dead_letters()
    assert first["transaction_id"] == undone
    assert first["age_s"] >= 60 > second["age_s"]
    assert (first["kind"], first["step"], first["worker"]) == ("undo", "charge", "letters.undo")
    assert first["error"] == {"type": "NonRetryableError", "message": "bank is closed"}
    assert (first["attempts"], first["input"], first["state"]) == (1, {"sku": "A1"}, "failed")
    assert (second["transaction_id"], second["kind"], second["state"]) == (
        stepped,
        "step",
        "running",
    )


def test_the_list_is_narrowed_by_workflow_step_kind_age_and_limit(
    lab: SagaLab, desk: Sagas
) -> None:
    """All filters must match, and an unknown kind is an error."""
    old = park_undo(lab)
    lab.advance(100)
    park_undo(lab, "reserve", "letters-other")
    park_step(lab)

    def found(**filters: Any) -> list[tuple[str, str]]:
        return [(row["workflow"], row["step"]) for row in desk.dead_letters(**filters)]

    assert found(workflow="letters-other") == [("letters-other", "reserve")]
    assert found(step="mail") == [("letters-pivot", "mail")]
    assert len(found(kind="undo")) == 2
    assert found(kind="undo", step="mail") == []
    assert found(older_than_s=50) == found(saga_id=old) == [("letters-order", "charge")]
    assert found(limit=1) == [("letters-order", "charge")]
    with pytest.raises(InvalidInput, match="step, undo"):
        desk.dead_letters(kind="run")
    with pytest.raises(UnknownSaga):
        desk.dead_letters(saga_id="no-such-saga")


def test_one_sagas_letters_bring_what_their_function_is_given(lab: SagaLab, desk: Sagas) -> None:
    """They have the results of the steps before and of the step to undo."""
    (letter,) = desk.dead_letters(saga_id=park_undo(lab))
    assert letter["step_results"] == {"reserve": {"reserve": "done"}}
    assert letter["result"] == {"charge": "done"}


def test_a_healthy_saga_leaves_the_indexes_alone(lab: SagaLab, redis_url: str) -> None:
    """Retries, failure and undo write nothing to them."""
    lab.fail("ship", attempt=1)
    lab.start(order())
    lab.fail("ship", error=NonRetryableError("no courier"), attempt=None)
    lab.start(order())
    with redis.Redis.from_url(redis_url) as client:
        assert client.exists(SHARD.attention, SHARD.dead_letters) == 0


def test_all_shards_are_listed_together(redis_url: str) -> None:
    """One list covers the sagas of all shards."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    with lab_on(redis_url, Settings(redis_url=redis_url, shards=4)) as lab:
        wanted = [park_undo(lab) for _ in range(8)]
        rows = lab._eager.host.call("dead_letters", limit=None)
        shards = {
            lab._eager.host.coordinator.repository.keys(saga_id).shard.number for saga_id in wanted
        }
        assert len(shards) > 1
        assert {row["transaction_id"] for row in rows} == set(wanted)
        assert len(lab._eager.host.call("dead_letters", limit=3)) == 3


# ---- settling ----


def test_a_retried_undo_undoes_and_the_saga_is_compensated(
    lab: SagaLab, desk: Sagas, redis_url: str
) -> None:
    """The history has operator and reason, and no dead letter remains."""
    saga_id = park_undo(lab)
    saga = desk.retry(saga_id, "charge", by="ada", reason="the bank is open")
    assert (saga["state"], saga["needs_attention"]) == ("compensated", False)
    (event,) = asked(desk, saga_id)
    assert event["step"] == "charge"
    assert event["data"] == {"command": "retry", "by": "ada", "reason": "the bank is open"}
    assert desk.dead_letters() == []
    assert index(redis_url) == (set(), set())


def test_a_skipped_undo_leaves_the_saga_failed(lab: SagaLab, desk: Sagas) -> None:
    """A saga with a skipped undo must not read as compensated (rule 5)."""
    saga = desk.skip(park_undo(lab), reason="below a cent")
    assert (saga["state"], saga["needs_attention"]) == ("failed", False)
    assert saga["steps"]["charge"]["compensation"]["state"] == "skipped"


def test_a_step_is_retried_skipped_or_resolved_and_the_saga_goes_on(
    lab: SagaLab, desk: Sagas
) -> None:
    """Each action leads to a completed saga; only a retry runs the function again."""
    states = {}
    for word in ("retry", "skip", "resolve"):
        saga_id = park_step(lab)
        saga = getattr(desk, word)(saga_id, "mail", reason="by phone")
        states[word] = (saga["state"], saga["steps"]["mail"]["state"], lab.path(saga_id)[-2:])
    assert states == {
        "retry": ("completed", "succeeded", ["mail", "file"]),
        "skip": ("completed", "skipped", ["mail", "file"]),
        "resolve": ("completed", "succeeded", ["mail", "file"]),
    }


def test_skip_and_resolve_need_a_reason(lab: SagaLab, desk: Sagas) -> None:
    """The error comes before any change."""
    saga_id = park_step(lab)
    for word in ("skip", "resolve"):
        with pytest.raises(InvalidInput, match="needs a reason"):
            getattr(desk, word)(saga_id, reason=" ")
        with pytest.raises(InvalidInput, match="needs a reason"):
            desk.settle_dead_letters(word)
    assert asked(desk, saga_id) == []


def test_many_are_settled_by_one_word_and_each_saga_has_it_in_its_log(
    lab: SagaLab, desk: Sagas
) -> None:
    """Only letters that match the filters are settled; a dry run changes nothing."""
    meant = {park_undo(lab), park_undo(lab)}
    other = park_step(lab)
    would = desk.settle_dead_letters("skip", workflow="letters-order", reason="old", dry_run=True)
    assert {row["transaction_id"] for row in would} == meant
    assert {row["done"] for row in would} == {None}
    assert len(desk.dead_letters()) == 3
    rows = desk.settle_dead_letters("skip", workflow="letters-order", reason="old", by="ada")
    assert [(row["done"], row["problem"]) for row in rows] == [(True, None)] * 2
    assert [row["transaction_id"] for row in desk.dead_letters()] == [other]
    for saga_id in meant:
        (event,) = asked(desk, saga_id)
        (since,) = (row["parked_at"] for row in rows if row["transaction_id"] == saga_id)
        which = {"kind": "undo", "parked_at": since}
        assert event["data"] == {"command": "skip", "by": "ada", "reason": "old", **which}
    with pytest.raises(InvalidInput, match="retry, skip, resolve"):
        desk.settle_dead_letters("forget")


def test_the_async_face_has_the_same_operations(saga_lab: SagaLab) -> None:
    """One table gives list, explain and the actions."""
    saga_id = park_step(saga_lab)

    async def main() -> tuple[Any, ...]:
        async with Orchestrator(pivoted(), MemoryEventBus()) as orchestrator:
            letters = await orchestrator.dead_letters()
            told = await orchestrator.explain(saga_id)
            saga = await orchestrator.resolve(saga_id, reason="by phone")
            return letters, told, saga

    letters, told, saga = asyncio.run(main())
    assert [row["step"] for row in letters] == ["mail"]
    assert told["transaction_id"] == saga_id
    assert saga["state"] == "completed"


# ---- other commands ----


def test_a_completed_saga_is_rolled_back(lab: SagaLab, desk: Sagas) -> None:
    """The last step goes first; the operator is that of the setting, or the system's user."""
    saga_id = lab.start(order())
    assert desk.rollback(saga_id, reason="wrong price")["state"] == "compensated"
    lab.assert_undone(saga_id, "charge", "reserve")
    (event,) = asked(desk, saga_id)
    assert event["data"]["by"]


def test_terminate_ends_without_undo_and_closes_the_letters(
    lab: SagaLab, desk: Sagas, redis_url: str
) -> None:
    """The saga keeps asking for attention until an operator resolves it."""
    saga_id = park_step(lab)
    saga = desk.terminate(saga_id, reason="a mess")
    assert (saga["state"], saga["attention"][-1]) == ("failed", "terminated without undo")
    assert desk.dead_letters() == []
    assert index(redis_url) == ({saga_id.encode()}, set())
    with pytest.raises(NotAllowed, match=r"it was terminated; allowed actions: resolve"):
        desk.retry(saga_id)
    resolved = desk.resolve(saga_id, reason="cleared up by hand")
    assert (resolved["state"], resolved["attention"]) == ("failed", [])
    assert index(redis_url) == (set(), set())


@pytest.mark.parametrize(
    ("command", "make", "why"),
    [
        ("rollback", park_undo, "it is failed; allowed actions: retry, skip, resolve"),
        ("retry", lambda lab: lab.start(order()), "has no dead letter.*allowed actions: rollback$"),
        ("resume", lambda lab: lab.start(order()), "it is completed"),
        ("cancel", park_undo, "it is failed"),
        ("pause", park_undo, "it is failed"),
        ("terminate", park_undo, "it is failed"),
        ("rollback", lambda lab: lab.start(pivoted()), "'charge', its point of no return"),
    ],
)
def test_what_the_state_does_not_allow_is_an_error(
    lab: SagaLab, desk: Sagas, command: str, make: Any, why: str
) -> None:
    """The error names the saga, the reason and the allowed actions; the log stays the same."""
    saga_id = make(lab)
    with pytest.raises(NotAllowed, match=f"(?s)cannot {command} saga {saga_id}.*{why}"):
        getattr(desk, command)(saga_id)
    assert asked(desk, saga_id) == []


def test_a_step_that_is_no_dead_letter_is_named_with_those_that_are(
    lab: SagaLab, desk: Sagas
) -> None:
    """The step may be misspelt or already settled."""
    saga_id = park_step(lab)
    with pytest.raises(NotAllowed, match=r"step 'file' is waiting.*its dead letters: mail"):
        desk.retry(saga_id, "file")
    with pytest.raises(NotAllowed, match="no step 'post'"):
        desk.retry(saga_id, "post")


def test_a_cancel_after_the_pivot_is_recorded_and_refused(
    lab: SagaLab, desk: Sagas, redis_url: str
) -> None:
    """The saga asks for attention without a dead letter, until an operator resolves it."""

    def cancelled_meanwhile(held: Any) -> None:
        if held.step == "mail":
            with pytest.raises(NotAllowed, match="cancel came after the pivot"):
                lab._eager.host.call("cancel", held.saga_id)

    lab._eager.faults.append(cancelled_meanwhile)
    saga_id = lab.start(pivoted())
    saga = desk.get(saga_id)
    assert saga["state"] == "completed"
    assert saga["attention"] == ["cancel came after the pivot: not undone"]
    assert index(redis_url) == ({saga_id.encode()}, set())
    assert desk.resolve(saga_id, reason="refunded by hand")["attention"] == []
    assert index(redis_url) == (set(), set())
    assert [event["data"]["command"] for event in asked(desk, saga_id)] == ["cancel", "resolve"]


# ---- retention ----


def test_retention_begins_when_the_last_letter_is_closed(
    lab: SagaLab, desk: Sagas, redis_url: str
) -> None:
    """Rule 13: a saga with an open letter is kept; afterwards it goes whole, with its indexes."""
    retention_s = runtime_at(redis_url).settings.retention_s
    saga_id = park_undo(lab)
    lab.advance(3 * retention_s)
    assert desk.get(saga_id)["state"] == "failed"
    desk.skip(saga_id, reason="written off")
    lab.advance(retention_s - 60)
    assert desk.get(saga_id)["state"] == "failed"
    lab.advance(120)
    with pytest.raises(UnknownSaga):
        desk.get(saga_id)
    assert index(redis_url) == (set(), set())


def test_what_is_purged_leaves_the_index_of_attention(
    lab: SagaLab, desk: Sagas, redis_url: str
) -> None:
    """A terminated saga asks for attention until its retention ends."""
    saga_id = park_step(lab)
    desk.terminate(saga_id)
    assert index(redis_url)[0] == {saga_id.encode()}
    lab.advance(runtime_at(redis_url).settings.retention_s + 60)
    assert index(redis_url) == (set(), set())


# ---- what an older version left ----


def test_letters_of_an_older_version_are_missed_told_of_and_indexed(
    lab: SagaLab, desk: Sagas, redis_url: str
) -> None:
    """One saga's list shows them; the doctor finds the gap, and reindex closes it."""
    saga_id = park_undo(lab)
    with redis.Redis.from_url(redis_url) as client:
        client.delete(SHARD.attention, SHARD.dead_letters)
        client.zadd(SHARD.dead_letters, {"run|mail|letters-pivot|no-such-saga": 1})
        client.zadd(SHARD.dead_letters, {f"undo|reserve|letters-order|{saga_id}": 2})
    assert desk.dead_letters() == []
    assert len(desk.dead_letters(saga_id=saga_id)) == 1
    checks = {c["name"]: c for c in cli("doctor", "--json", url=redis_url).json["checks"]}
    assert "reindex" in checks["dead letters"]["fix"]
    assert desk.reindex_dead_letters() == {"sagas": 1, "added": 2, "removed": 2}
    assert [row["step"] for row in desk.dead_letters()] == ["charge"]
    assert desk.reindex_dead_letters() == {"sagas": 1, "added": 0, "removed": 0}


def test_the_package_offers_them_by_name() -> None:
    """`multiagents.sagas` has every operation of the table."""
    assert {"rollback", "terminate", "retry", "skip", "resolve", "explain"} <= set(dir(sagas))
    assert sagas.dead_letters.__doc__
    assert register(order()).name == "letters-order"
