"""Does the store keep its promises, on the real server and in process?

This is the conformance suite: every test runs against a real server and against fakeredis, which
eager mode uses. The tests make the decisions; the store must not depend on their content.
"""

from __future__ import annotations

from collections.abc import Iterator

import fakeredis
import pytest

from multiagents.core import ids
from multiagents.core.entries import (
    Claimed,
    Failed,
    Failure,
    Lost,
    Requested,
    Started,
    Succeeded,
    TimerDue,
    Withdrawn,
)
from multiagents.core.states import Action, Kind
from multiagents.storage import keys as k
from multiagents.storage import outbox, outcomes, replies
from multiagents.storage import sagas as store
from multiagents.storage.client import Edge
from multiagents.storage.commit import Letter
from multiagents.storage.keys import SagaKeys, Shard
from multiagents.storage.replies import View
from tests.support.stored import LEASE, NOW, RUN, claim, due, member, plan, start, sweep, view


@pytest.fixture(params=["server", "in process"])
def edge(request: pytest.FixtureRequest) -> Iterator[Edge]:
    """An edge to an empty store."""
    if request.param == "server":
        real = Edge(request.getfixturevalue("redis_url"))
        yield real
        real.close()
    else:
        yield Edge("", client=fakeredis.FakeRedis(server=fakeredis.FakeServer()))


@pytest.fixture
def saga(edge: Edge) -> SagaKeys:
    """A saga that has just started, with its first command in the outbox."""
    keys = SagaKeys(ids.fresh_id())
    first = plan(
        state_before=None,
        decided=[Started(NOW)],
        outbox={RUN: ("0|0", NOW + 2000)},
        steps=[("a", '["dispatched"]')],
    )
    assert edge.execute(start(keys, first)) == store.CREATED
    return keys


def test_a_start_writes_state_log_outbox_and_indexes_at_once(edge, saga):
    """No part of a saga exists without the others."""
    loaded = view(edge, saga)
    assert loaded.version == "v1"
    assert loaded.entries == ()
    assert loaded.steps == {"a": ["dispatched"]}
    assert due(edge) == {k.due_outbox(saga.id, RUN): NOW + 2000}
    assert edge.execute(store.ids(Shard().state("running"), offset=0, limit=9)) == [saga.id]


def test_a_second_start_with_one_id_joins_the_first(edge, saga):
    """Rule 12: the first start counts, and the second task id waits, too."""
    again = store.start(
        saga,
        plan("other"),
        waiting=("task-2", ""),
        definition=("d", ""),
        reads_values=False,
        data={"input": "{}"},
        indexes=(),
    )
    assert edge.execute(again) == store.EXISTED
    data = edge.execute(store.data(saga))
    assert {f"alias:{saga.id}", "alias:task-2"} <= data.keys()
    assert data["input"] == '{"x":1}'


def test_a_start_without_its_definition_asks_for_it(edge):
    """After a flush no saga lacks its definition."""
    keys = SagaKeys("s1")
    first = plan(state_before=None, decided=[Started(NOW)])
    assert edge.execute(start(keys, first, "")) == store.SEND_DEFINITION
    assert not edge.client.exists(keys.saga)


def test_a_known_entry_is_not_appended_again(edge, saga):
    """E4: an append without reply can be sent again."""
    asked = Requested(NOW, Action.PAUSE, "request-1")
    for _ in range(3):
        assert edge.execute(store.append(saga, asked)).entries == (asked,)


def test_an_append_to_a_missing_saga_creates_nothing(edge):
    """E16: no part of a purged saga comes back."""
    keys = SagaKeys("gone")
    assert edge.execute(store.append(keys, Requested(NOW, Action.PAUSE, "r"))) == replies.GONE
    assert edge.client.keys("*gone*") == []


def test_an_appended_entry_makes_the_saga_due_until_a_commit_covers_it(edge, saga):
    """E1: only a commit up to the log's end makes it clean."""
    edge.execute(store.append(saga, Requested(NOW, Action.PAUSE, "r1")))
    first = view(edge, saga)
    assert due(edge)[k.due_dirty(saga.id)] == NOW + store.DIRTY_AFTER_MS
    edge.execute(store.append(saga, Requested(NOW, Action.RESUME, "r2")))
    half = edge.execute(store.commit(saga, ("v1", "0"), plan("v2", first.last)))
    assert half.more
    assert k.due_dirty(saga.id) in due(edge)
    rest = view(edge, saga)
    assert [entry.request for entry in rest.entries] == ["r2"]
    assert edge.execute(store.commit(saga, ("v2", "0"), plan("v3", rest.last))).more is False
    assert k.due_dirty(saga.id) not in due(edge)


def test_a_commit_over_an_older_version_gets_the_fresh_view(edge, saga):
    """The loser of a race decides again without another read."""
    edge.execute(store.append(saga, Requested(NOW, Action.PAUSE, "r1")))
    last = view(edge, saga).last
    assert edge.execute(store.commit(saga, ("v1", "0"), plan("v2", last))).more is False
    fresh = edge.execute(store.commit(saga, ("v1", "0"), plan("v9", last)))
    assert isinstance(fresh, View)
    assert (fresh.version, fresh.entries) == ("v2", ())


def test_a_reader_that_knows_the_version_gets_no_state(edge, saga):
    """A cached state is not sent again."""
    known = view(edge, saga, known=("v1", view(edge, saga).cursor))
    assert (known.head, known.steps, known.definition) == (None, None, None)


def test_a_wide_sagas_reader_is_told_what_happened_since(edge):
    """An overtaken process updates its own state from the log."""
    keys = SagaKeys("wide")
    first = plan("01", state_before=None, decided=[Started(NOW)])
    edge.execute(start(keys, first, wide=True))
    base = view(edge, keys)
    asked = [Requested(NOW, Action.PAUSE, f"r{n}") for n in range(3)]
    for number, entry in enumerate(asked[:2]):
        seen = edge.execute(store.append(keys, entry))
        known = (seen.version, seen.cursor)
        edge.execute(store.commit(keys, known, plan(f"1{number}", seen.last)))
    edge.execute(store.append(keys, asked[2]))
    since = view(edge, keys, known=(base.version, base.cursor))
    assert since.head is None
    assert (since.passed, since.entries) == (tuple(asked[:2]), (asked[2],))
    stranger = view(edge, keys, known=("99", base.cursor))
    assert stranger.head is not None
    assert (stranger.passed, stranger.entries) == ((), (asked[2],))


def test_one_attempt_is_claimed_once(edge, saga):
    """E3: one process gets exactly the recorded attempt, and its own retry is recognised."""
    first = edge.execute(claim(saga))
    assert first is not None
    assert first.data == ('{"x":1}', None)
    assert edge.execute(claim(saga, "bb")) is None
    assert edge.execute(claim(saga)) == first
    assert due(edge) == {member(saga): NOW + LEASE}
    assert [entry.nonce for entry in view(edge, saga).entries] == ["aa"]


def test_a_claim_brings_the_results_of_any_number_of_steps(edge, saga):
    """E15: a script's stack holds only some thousands of values."""
    edge.client.hset(saga.data, mapping={"r:s0": "1", "r:s8999": "2"})
    held = edge.execute(claim(saga, fields=[f"r:s{number}" for number in range(9000)]))
    assert held is not None
    assert (len(held.data), held.data[0], held.data[8999]) == (9000, "1", "2")
    assert not any(held.data[1:8999])


def test_a_withdrawal_and_a_claim_cannot_both_happen(edge, saga):
    """E3: the first one is in the log, and the other does nothing."""
    withdrawn = Withdrawn(NOW, Kind.RUN, "a", 1, "v2")
    edge.execute(
        store.commit(
            saga, ("v1", "0"), plan("v2", view(edge, saga).last, withdrawals={RUN: withdrawn})
        )
    )
    assert edge.execute(claim(saga)) is None
    assert view(edge, saga).entries == (withdrawn,)


def test_a_claimed_command_is_not_withdrawn(edge, saga):
    """E3: this is the opposite order."""
    edge.execute(claim(saga))
    cursor = view(edge, saga).last
    withdrawn = Withdrawn(NOW, Kind.RUN, "a", 1, "v2")
    edge.execute(store.commit(saga, ("v1", "0"), plan("v2", cursor, withdrawals={RUN: withdrawn})))
    assert view(edge, saga).entries == ()


def test_a_report_ends_claim_and_lease_and_keeps_the_result(edge, saga):
    """One write ends an attempt."""
    edge.execute(claim(saga))
    done = Succeeded(NOW, Kind.RUN, "a", 1, "aa")
    edge.execute(store.report(saga, done, result='{"ok":1}'))
    assert edge.execute(store.work(saga)) == {}
    assert edge.execute(store.data(saga))["r:a"] == '{"ok":1}'
    assert set(due(edge)) == {k.due_dirty(saga.id)}


def test_a_late_result_is_recorded_and_overwrites_nothing(edge, saga):
    """Fencing: the log has the zombie's report, and the newer result stays."""
    edge.execute(claim(saga))
    edge.execute(store.report(saga, Succeeded(NOW, Kind.RUN, "a", 1, "aa"), result='{"n":1}'))
    late = Succeeded(NOW, Kind.RUN, "a", 1, "bb")
    loaded = edge.execute(store.report(saga, late, result='{"n":2}'))
    assert loaded.entries[-1] == late
    assert edge.execute(store.data(saga))["r:a"] == '{"n":1}'


def test_a_lost_attempts_result_is_put_aside_until_a_commit_adopts_it(edge, saga):
    """Each claim has its own; none overwrites a valid result."""
    edge.execute(claim(saga))
    for nonce, result in (("bb", '{"n":2}'), ("cc", '{"n":3}')):
        late = Succeeded(NOW, Kind.RUN, "a", 1, nonce)
        seen = edge.execute(store.report(saga, late, result=result))
    kept = edge.execute(store.data(saga))
    assert "r:a" not in kept
    assert (kept["l:bb"], kept["l:cc"]) == ('{"n":2}', '{"n":3}')
    adopts = plan("v2", seen.last, adopted={"l:bb": "r:a", "l:dd": "r:b"})
    edge.execute(store.commit(saga, ("v1", "0"), adopts))
    kept = edge.execute(store.data(saga))
    assert kept["r:a"] == '{"n":2}'
    assert "r:b" not in kept
    edge.execute(store.report(saga, Succeeded(NOW, Kind.RUN, "a", 1, "aa"), result='{"n":1}'))
    again = plan("v3", view(edge, saga).last, adopted={"l:cc": "r:a"})
    edge.execute(store.commit(saga, ("v2", seen.last), again))
    assert edge.execute(store.data(saga))["r:a"] == '{"n":1}'


def test_a_lease_is_renewed_by_its_holder_up_to_the_deadline(edge, saga):
    """A renewal never moves a lease past the step's timeout."""
    edge.execute(claim(saga, deadline=NOW + 20_000))
    held = store.Attempt(saga.id, Kind.RUN, "a", 1, "aa")
    assert edge.execute(store.renew(saga, held, lease_ends=NOW + 30_000, notes={"p:a": "1"}))
    assert due(edge)[member(saga)] == NOW + 20_000
    assert edge.execute(store.data(saga))["p:a"] == "1"
    other = store.Attempt(saga.id, Kind.RUN, "a", 1, "bb")
    assert not edge.execute(store.renew(saga, other, lease_ends=NOW + 9, notes={}))


def test_a_sweep_shows_what_is_due_once_and_takes_nothing_out(edge, saga):
    """E2: a sweeper may die with its items, and the next one sees them soon."""
    sweep(edge, NOW)
    first = sweep(edge, NOW + 2500)
    assert [item.member for item in first] == [k.due_outbox(saga.id, RUN)]
    assert sweep(edge, NOW + 2500) == ()
    assert len(sweep(edge, NOW + 2500 + store.PUT_OFF_MS)) == 1


def test_a_lease_that_was_renewed_meanwhile_is_not_ended(edge, saga):
    """E2: handling a due item needs its sweep's token."""
    edge.execute(claim(saga))
    for now in range(NOW, NOW + LEASE + 1, 5000):
        found = sweep(edge, now)
    (item,) = found
    held = store.Attempt(saga.id, Kind.RUN, "a", 1, "aa")
    edge.execute(store.renew(saga, held, lease_ends=NOW + 2 * LEASE, notes={}))
    lost = Lost(NOW + LEASE, Kind.RUN, "a", 1, "aa")
    assert edge.execute(store.append(saga, lost, guard=item)) == replies.MOVED
    assert view(edge, saga).entries[-1] != lost


def test_a_lost_lease_cannot_be_renewed(edge, saga):
    """E2: a zombie cannot restore it."""
    edge.execute(claim(saga))
    for now in range(NOW, NOW + LEASE + 1, 5000):
        found = sweep(edge, now)
    edge.execute(store.append(saga, Lost(NOW + LEASE, Kind.RUN, "a", 1, "aa"), guard=found[0]))
    held = store.Attempt(saga.id, Kind.RUN, "a", 1, "aa")
    assert not edge.execute(store.renew(saga, held, lease_ends=NOW + 9 * LEASE, notes={}))


def test_after_a_gap_in_sweeping_leases_get_a_full_term(edge, saga):
    """E9: a long outage of the server does not end every running step."""
    edge.execute(claim(saga))
    assert sweep(edge, NOW + 60_000) == ()
    assert due(edge)[member(saga)] == NOW + 60_000 + LEASE


def test_a_timer_fires_once(edge, saga):
    """Two sweepers with the same timer append one entry."""
    timer = k.due_timer(saga.id, "deadline")
    edge.execute(
        store.commit(saga, ("v1", "0"), plan("v2", view(edge, saga).last, due={timer: NOW}))
    )
    (item,) = sweep(edge, NOW)
    entry = TimerDue(NOW, "deadline")
    assert edge.execute(store.append(saga, entry, guard=item)).entries == (entry,)
    assert edge.execute(store.append(saga, entry, guard=item)) == replies.MOVED


def test_a_due_entry_of_a_missing_saga_is_dropped(edge):
    """E16: a purged saga's rest does not stay due."""
    edge.client.zadd(Shard().due, {"t|gone|deadline": NOW})
    (item,) = sweep(edge, NOW)
    entry = TimerDue(NOW, "deadline")
    assert edge.execute(store.append(SagaKeys("gone"), entry, guard=item)) == replies.GONE
    assert due(edge) == {}


def test_an_advance_commits_only_over_what_it_knew(edge, saga):
    """One trip reports and decides, or reports and returns the fresh view."""
    edge.execute(claim(saga))
    edge.execute(store.commit(saga, ("v1", "0"), plan("v2", view(edge, saga).last)))
    done = Succeeded(NOW, Kind.RUN, "a", 1, "aa")
    lead = plan("v3", "", steps=[("a", '["succeeded"]')])
    cursor = view(edge, saga).cursor
    call = store.advance(saga, lead, known=("v2", cursor), texts=(), entry=done, result="{}")
    assert edge.execute(call).more is False
    assert view(edge, saga).steps == {"a": ["succeeded"]}
    assert view(edge, saga).entries == ()


def test_a_claim_brings_the_state_that_an_advance_builds_on(edge, saga):
    """The claim's own entry is pending, so an advance decides over it and the report."""
    claimed = edge.execute(claim(saga, known=("", "")))
    assert claimed.view.version == "v1"
    assert [entry.type for entry in claimed.view.entries] == ["claimed"]
    done = Succeeded(NOW, Kind.RUN, "a", 1, "aa")
    texts = claimed.view.texts
    known = ("v1", claimed.view.cursor)
    call = store.advance(saga, plan("v2", ""), known=known, texts=texts, entry=done, result="{}")
    assert edge.execute(call).more is False
    assert view(edge, saga).entries == ()


def test_a_claim_sends_no_state_that_is_not_asked_for(edge, saga):
    """A wide saga's state, or one with values, would be sent in vain."""
    assert edge.execute(claim(saga)).view is None


def test_an_advance_that_was_overtaken_leaves_its_entry(edge, saga):
    """The report stays, even if the decision does not."""
    edge.execute(claim(saga))
    done = Failed(NOW, Kind.RUN, "a", 1, "aa", Failure("E", "x"))
    fresh = edge.execute(
        store.advance(saga, plan("v3"), known=("v1", "0"), texts=(), entry=done, result=None)
    )
    assert isinstance(fresh, View)
    assert [entry.type for entry in fresh.entries] == ["claimed", "failed"]
    assert fresh.version == "v1"


def test_entries_decided_in_advance_follow_only_what_was_read(edge, saga):
    """A commit with its own entries must not pass over another process's."""
    edge.execute(store.append(saga, Requested(NOW, Action.PAUSE, "r1")))
    read = view(edge, saga)
    edge.execute(store.append(saga, Requested(NOW, Action.RESUME, "r2")))
    lead = plan("v2", read.last, decided=[Claimed(NOW, Kind.RUN, "a", 1, "cc")])
    fresh = edge.execute(store.commit(saga, ("v1", "0"), lead))
    assert isinstance(fresh, View)
    assert [entry.request for entry in fresh.entries] == ["r1", "r2"]


def test_two_that_leave_their_places_send_two_commands(edge, saga):
    """Within one millisecond the second process publishes the next withheld command."""
    held_back = {f"o:run:{step}:1": f"{NOW}|0" for step in ("x", "y")}
    edge.client.hset(saga.work, mapping=held_back)
    rows = [(name, (f"{NOW}|1", NOW + 5), Letter("queue", name)) for name in held_back]
    assert [edge.execute(outbox.hand_on(saga, rows)) for _ in range(3)] == [1, 2, 0]
    assert edge.client.lrange("queue", 0, -1) == [b"o:run:y:1", b"o:run:x:1"]
    assert edge.client.zscore(saga.due, f"o|{saga.id}|o:run:x:1") == NOW + 5


def test_a_purge_removes_everything_and_only_what_it_looked_at(edge, saga):
    """E16: one script checks again and removes the saga whole."""
    indexes = (Shard().sagas, Shard().state("running"))
    assert edge.execute(outcomes.purge(saga, "other", indexes, later_ms=NOW)) == 0
    assert edge.execute(outcomes.purge(saga, "v1", indexes, later_ms=NOW)) == 1
    assert edge.client.keys(f"*{saga.id}*") == []
    assert edge.execute(store.ids(Shard().sagas, offset=0, limit=9)) == []
