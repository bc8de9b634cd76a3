"""What does a decision become in the store?

A `Commit`: commands as outbox entries with the time of the next look, timers as due members,
changed steps as rows.  Pure: the nonce of the revision is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

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
        ROWS[type(command)](plan, saga.id, command)
    _add_retention(plan, before, saga, retention_ms)
    if before.attention or saga.attention:  # a parked step asks for it too
        plan.waiting = changes(before, saga, decision.changed)
    return plan


def _dispatch(plan: Commit, saga_id: str, command: Dispatch) -> None:
    plan.outbox[outbox_field(command.ref)] = messages.unsent(plan.now_ms)


def _withdraw(plan: Commit, saga_id: str, command: Withdraw) -> None:
    ref = command.ref
    plan.withdrawals[outbox_field(ref)] = Withdrawn(plan.now_ms, *ref, plan.version)


def _set_timer(plan: Commit, saga_id: str, command: SetTimer) -> None:
    plan.due[k.due_timer(saga_id, command.timer)] = command.at_ms


def _clear_timer(plan: Commit, saga_id: str, command: ClearTimer) -> None:
    member = k.due_timer(saga_id, command.timer)
    plan.due.pop(member, None)
    plan.cleared.append(member)


def _deliver(plan: Commit, saga_id: str, command: Deliver) -> None:
    plan.outbox[OUTBOX_END] = messages.unsent(plan.now_ms)


def _tell_again(plan: Commit, saga_id: str, command: TellAgain) -> None:
    # No earlier delivery has this number, so one that runs now cannot settle it (E12).
    token = int(plan.version[:10], 16)
    _, due_ms = messages.unsent(plan.now_ms)
    plan.outbox[OUTBOX_END] = (f"0|{token}", due_ms)


def _adopt(plan: Commit, saga_id: str, command: Adopt) -> None:
    plan.adopted[late_field(command.nonce)] = result_field(Kind.RUN, command.step)


ROWS: Mapping[type[Command], Callable[[Commit, str, Any], None]] = {
    Dispatch: _dispatch,
    Withdraw: _withdraw,
    SetTimer: _set_timer,
    ClearTimer: _clear_timer,
    Deliver: _deliver,
    TellAgain: _tell_again,
    Adopt: _adopt,
}
"""How each command of a decision is written: a function of the commit and the saga's id."""


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
