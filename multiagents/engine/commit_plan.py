"""What does a decision become in the store?

A `Commit`: commands as outbox entries with a time at which somebody looks at them again, timers as
due members, changed steps as rows.  Pure but for the version's nonce, which is handed in.
"""

from __future__ import annotations

from collections.abc import Iterable

from multiagents.core.entries import Withdrawn
from multiagents.core.fields import OUTBOX_END, late_field, outbox_field, result_field
from multiagents.core.states import ENDED, Kind
from multiagents.engine import messages
from multiagents.saga.commands import (
    Adopt,
    ClearTimer,
    Command,
    Deliver,
    Dispatch,
    SetTimer,
    TellAgain,
    Withdraw,
)
from multiagents.saga.dead_letters import changes
from multiagents.saga.decide import Decision
from multiagents.saga.outcome import has_dead_letters
from multiagents.saga.state import Saga, encode_head, encode_step
from multiagents.storage import keys as k
from multiagents.storage.commit import Commit
from multiagents.storage.keys import SagaKeys


def plan_of(
    before: Saga,
    decision: Decision,
    *,
    version: str,
    cursor: str,
    now_ms: int,
    retention_ms: int,
) -> Commit:
    """The plan that writes ``decision``, made over ``before``."""
    saga = decision.saga
    plan = Commit(
        version=version,
        cursor=cursor,
        head=encode_head(saga),
        now_ms=now_ms,
        created_at=saga.created_at,
        state_before=before.state,
        state=saga.state,
        steps=[
            (name, encode_step(saga.steps[name], saga.created_at))
            for name in sorted(decision.changed)
        ],
    )
    for command in decision.commands:
        _add(plan, saga.id, command)
    _add_retention(plan, before, saga, retention_ms)
    if before.attention or saga.attention:  # what is parked asks for it too
        plan.waiting = changes(before, saga, decision.changed)
    return plan


def _add(plan: Commit, saga_id: str, command: Command) -> None:
    unsent = messages.unsent(plan.now_ms)
    match command:
        case Dispatch(kind, step, attempt):
            plan.outbox[outbox_field(kind, step, attempt)] = unsent
        case Withdraw(kind, step, attempt):
            name = outbox_field(kind, step, attempt)
            plan.withdrawals[name] = Withdrawn(plan.now_ms, kind, step, attempt, plan.version)
        case SetTimer(timer, at_ms):
            plan.due[k.due_timer(saga_id, timer)] = at_ms
        case ClearTimer(timer):
            member = k.due_timer(saga_id, timer)
            plan.due.pop(member, None)
            plan.cleared.append(member)
        case Deliver(_):
            plan.outbox[OUTBOX_END] = unsent
        case TellAgain():
            # Another number than any before it: whoever is telling now does not settle it (E12).
            token = int(plan.version[:10], 16)
            plan.outbox[OUTBOX_END] = (f"0|{token}", unsent[1])
        case Adopt(step, nonce):
            plan.adopted[late_field(nonce)] = result_field(Kind.RUN, step)


def _add_retention(plan: Commit, before: Saga, saga: Saga, retention_ms: int) -> None:
    """Retention begins with the end, or when the last dead letter is closed (rule 13)."""
    member = k.due_purge(saga.id)
    if saga.state in ENDED and not has_dead_letters(saga):
        if before.state not in ENDED or has_dead_letters(before):
            plan.due[member] = plan.now_ms + retention_ms
    elif before.state in ENDED:
        plan.cleared.append(member)


def index_keys(keys: SagaKeys, workflow: str, tags: Iterable[str]) -> tuple[str, ...]:
    """The indexes that list a saga, besides the one of its state."""
    shard = keys.shard
    return (shard.sagas, shard.workflow(workflow), *(shard.labelled(tag) for tag in tags))
