"""How do the store's tests make decisions, and read their effects?"""

from __future__ import annotations

from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.entries import Claimed
from multiagents.core.fields import outbox_field
from multiagents.core.states import Kind, SagaState
from multiagents.storage import keys as k
from multiagents.storage import replies
from multiagents.storage import sagas as store
from multiagents.storage.client import Edge
from multiagents.storage.commit import Commit
from multiagents.storage.keys import SagaKeys, Shard
from multiagents.storage.replies import View
from multiagents.storage.sagas import Guard

NOW = 1_700_000_000_000
LEASE = 15_000
RUN = outbox_field(AttemptRef(Kind.RUN, "a", 1))


def plan(version: str = "v1", cursor: str = "0", **more) -> Commit:
    """A decision that changes only the revision by default."""
    state = more.pop("state", SagaState.RUNNING)
    given = {"state_before": SagaState.RUNNING, "now_ms": NOW, "created_at": NOW, **more}
    return Commit(version=version, cursor=cursor, head='["w","d","running"]', state=state, **given)


def start(keys: SagaKeys, first: Commit, definition: str = '{"d":1}', *, wide: bool = False):
    return store.start(
        keys,
        first,
        waiting=(keys.id, ""),
        definition=("d", definition),
        reads_values=False,
        wide=wide,
        data={"input": '{"x":1}', "meta": "{}"},
        indexes=(keys.shard.sagas,),
    )


def claim(
    keys: SagaKeys,
    nonce: str = "aa",
    now: int = NOW,
    *,
    deadline: int = 0,
    known=None,
    fields=("input", "r:z"),
):
    entry = Claimed(now, Kind.RUN, "a", 1, nonce, "host")
    return store.claim(
        keys,
        entry,
        delivery="t1",
        lease_ends=now + LEASE,
        deadline_ms=deadline,
        fields=fields,
        known=known,
    )


def due(edge: Edge) -> dict[str, float]:
    return {m.decode(): s for m, s in edge.client.zrange(Shard().due, 0, -1, withscores=True)}


def view(edge: Edge, keys: SagaKeys, known: replies.Known = replies.NOTHING) -> View:
    loaded = edge.execute(store.load(keys, known=known))
    assert isinstance(loaded, View)
    return loaded


def member(keys: SagaKeys, nonce: str = "aa") -> str:
    return k.due_lease(keys.id, AttemptRef(Kind.RUN, "a", 1), nonce)


def sweep(edge: Edge, now: int) -> tuple[Guard, ...]:
    return edge.execute(store.sweep(Shard(), now, limit=10, lease_ms=LEASE))
