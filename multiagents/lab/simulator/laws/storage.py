"""Which laws must hold for the stored data of a saga at rest?

- The state is the fold of the log, with every decision judged.
- The log is complete, compressed or not, and has each entry once.
- Outbox, claims and due set are empty, except for the end of the retention.
- The indexes have the saga's state, and its dead letters.
- Each result is that of the attempt that succeeded.
- Each report that the engine confirmed is in the log.
- No key remains of a saga that a server has lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from multiagents.core.entries import Entry, Failed, Lost, Report, Succeeded, decode
from multiagents.core.fields import late_field, result_field
from multiagents.core.ports import Waiting
from multiagents.core.states import ENDED, Kind, SagaState, StepState
from multiagents.engine.saga_reader import read_saga
from multiagents.lab.simulator.laws.end import is_kept
from multiagents.lab.simulator.laws.saga import law, replayed
from multiagents.lab.simulator.laws.witness import blank_of
from multiagents.lab.simulator.store import Store
from multiagents.saga.dead_letters import LETTERS, SAGAS, entries_of
from multiagents.saga.state import Saga
from multiagents.storage import aliases
from multiagents.storage import keys as k
from multiagents.storage import sagas as store
from multiagents.storage.calls import Call
from multiagents.storage.commit import entry_key
from multiagents.storage.keys import SagaKeys
from multiagents.storage.replies import View, hash_of
from multiagents.workflows.workflow import Workflow

LATEST_LEASE_MS = 60_000
"""No lease, plain task or postponement of a failing item lasts longer in these histories, by any
process's clock."""


def stored(kept: Store, workflow: Workflow, saga_id: str) -> tuple[Saga, list[Entry]]:
    """The stored saga and its log, whose fold it must be.  Raises LawBroken."""
    keys, edge = kept.keys(saga_id), kept.look
    view = edge.execute(store.load(keys))
    law(isinstance(view, View), f"{saga_id} is not stored")
    law(not view.entries, f"{saga_id}: no decision over {view.entries}")
    log = [decode(text) for text in edge.execute(store.log(keys))]
    law(int(view.cursor) == len(log), f"{saga_id}: cursor {view.cursor}, {len(log)} entries")
    saga = read_saga(saga_id, workflow, view)
    again = replayed(workflow, blank_of(kept, workflow, saga_id, log[0].at_ms), log)
    law(saga == again, f"{saga_id}: (stored, fold of its log): {_differences(saga, again)}")
    return saga, log


def _differences(saga: Saga, again: Saga) -> dict[str, Any]:
    """The differing fields of two states: (stored, fold of the log)."""
    apart = {"steps", "values"}
    names = [spec.name for spec in fields(saga) if spec.name not in apart]
    pairs = {name: (getattr(saga, name), getattr(again, name)) for name in names}
    steps = {name: (step, again.steps[name]) for name, step in saga.steps.items()}
    return {name: pair for name, pair in {**pairs, **steps}.items() if pair[0] != pair[1]}


def judge_store(kept: Store, saga: Saga, log: Sequence[Entry], due: Sequence[str]) -> None:
    """Judge the data that are stored beside the state.  Raises LawBroken.

    The result of a plain task belongs to its task id, which outlives a lost claim.
    """
    keys, client = kept.keys(saga.id), kept.client_of(saga.id)
    pipe = client.pipeline(transaction=False)
    pipe.hgetall(keys.work)
    pipe.smembers(keys.ids)
    pipe.hgetall(keys.data)
    for state in SagaState:
        pipe.zscore(keys.shard.state(state), saga.id)
    work, ids, data, *scores = pipe.execute()
    _judge_waiting(saga, _waiting(kept, saga.id))
    law(not work, f"{saga.id}: left in outbox and claims: {work}")
    law(ids == {entry_key(entry) for entry in log}, f"{saga.id}: ids differ from the log's")
    if kept.server_of(saga.id) not in kept.set_back:
        _judge_results(saga, log, hash_of(data))
    for state, score in zip(SagaState, scores, strict=True):
        law((score is not None) == (state is saga.state), f"{saga.id} is {saga.state}: {state}")
    kept_on = saga.state not in ENDED or is_kept(saga)
    purge = k.due_purge(saga.id) in due
    law(purge is not kept_on, f"{saga.id} is {saga.state}; retention runs: {purge}")


def _judge_waiting(saga: Saga, found: list[Waiting]) -> None:
    letters = {each for each in found if each.which == LETTERS}
    wanted = {each for each in entries_of(saga) if each.which == LETTERS}
    law(letters == wanted, f"{saga.id}: dead letters {wanted}, listed {letters}")
    listed = any(each.which == SAGAS for each in found)
    law(listed is bool(saga.attention), f"{saga.id}: {saga.attention}, listed: {listed}")


def _waiting(kept: Store, saga_id: str) -> list[Waiting]:
    """A saga's items in the indexes of sagas and dead letters that wait for an operator."""
    shard, client = kept.keys(saga_id).shard, kept.client_of(saga_id)
    found = [
        Waiting(index, member.decode(), int(since))
        for index, key in enumerate((shard.attention, shard.dead_letters))
        for member, since in client.zrange(key, 0, -1, withscores=True)
    ]
    return [each for each in found if each.member.rpartition("|")[2] == saga_id]


def _judge_results(saga: Saga, log: Sequence[Entry], data: dict[str, str]) -> None:
    given_up = {entry.nonce for entry in log if isinstance(entry, Lost | Failed)}
    for entry in log:
        if isinstance(entry, Succeeded) and entry.kind is Kind.RUN:
            step, text = saga.steps[entry.step], data.get(result_field(Kind.RUN, entry.step))
            kept = text or data.get(late_field(entry.nonce))
            law(kept, f"{saga.id}: {entry.step!r} succeeded, but its result is gone")
            if step.run.nonce == entry.nonce and entry.nonce not in given_up:
                by = json.loads(text or "{}")["by"]
                law(by == entry.nonce, f"{saga.id}: {entry.step!r} has another attempt's result")
    for name, step in saga.steps.items():
        counts = step.run.state is StepState.SUCCEEDED
        has = result_field(Kind.RUN, name) in data
        law(counts or not has, f"{saga.id}: {name!r} is {step.run.state}, but has a result")


def judge_reports(log: Sequence[Entry], reports: Sequence[Report]) -> None:
    """Each confirmed report is in the log (E1).  Raises LawBroken."""
    ids = {entry.id for entry in log}
    lost = [report.id for report in reports if report.id not in ids]
    law(not lost, f"confirmed, but not in the log: {lost}")


def judge_definitions(kept: Store) -> None:
    """A definition is stored exactly as long as a saga needs it (E16).

    Raises LawBroken.
    """
    for server, client in enumerate(kept.clients):
        for shard in kept.shards_of(server):
            sagas = client.keys(f"{shard.tag}:saga:*")
            used = {client.hget(key, "w") for key in sagas}
            stored = set(client.hkeys(shard.definitions))
            law(stored == used, f"definitions {stored} of {shard}, used are {used} (E16)")
            law(not client.exists(shard.unused), f"marked as unused: {shard}")


def judge_sweep(kept: Store, sweep: Call[Any], now_ms: int) -> None:
    """After a sweep by a correct clock, no lease ends later than a lease can (E9).

    A sweep cannot detect a clock that is ahead by less than one lease, so the limit is one lease
    higher.  Raises LawBroken.
    """
    due, args = sweep.keys[0], sweep.args
    latest_ms = now_ms + LATEST_LEASE_MS + int(args[3])
    if int(args[0]) > latest_ms:  # the sweep's own clock is ahead
        return
    client = kept.clients[kept.home_of(sweep)]
    far = client.zrangebyscore(due, latest_ms, "+inf")
    stray = [member for member in far if member.startswith((b"l|", b"d|"))]
    law(not stray, f"due much later than a lease lasts: {stray} (E9)")


def left_of(kept: Store, saga_id: str) -> list[str]:
    """The remaining keys, due members and start ids of a saga."""
    starts = kept.client_of(saga_id).hgetall(kept.keys(saga_id).shard.aliases)
    named = [name.decode() for name, saga in starts.items() if saga.decode() == saga_id]
    every = [key.decode() for key in kept.client_of(saga_id).keys("*")]
    found = [key for key in every if key.endswith(f":{saga_id}")]
    listed = [each.member for each in _waiting(kept, saga_id)]
    due = [each for each in kept.due() if (is_due := k.parse_due(each)) and is_due.owner == saga_id]
    return [*found, *named, *listed, *due]


def judge_starts(kept: Store, saga_id: str, task_ids: Iterable[str]) -> None:
    """The id of each confirmed start leads to its saga.  Raises LawBroken."""
    shard, edge = kept.keys(saga_id).shard, kept.look
    for task_id in sorted(set(task_ids) - {saga_id}):
        found = edge.execute(aliases.owner(shard, task_id))
        law(found == saga_id, f"{saga_id} was started as {task_id}, which leads to {found}")


def is_compressed(kept: Store, keys: SagaKeys) -> bool:
    """Whether the log is compressed."""
    found: Any = kept.client_of(keys.id).hget(keys.saga, "b")
    return bool(found)
