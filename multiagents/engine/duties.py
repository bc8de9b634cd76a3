"""What does a sweep do with a due timer, lease, retention or decision?

Each kind of due member has one handler, which takes a `Duty`.  The table of them stands in
`sweeper`; `resender` handles commands that may have to be published again.  A handler removes a
member only when it is dealt with (E2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from multiagents.core.effects import Flow
from multiagents.core.entries import Lost, TimerDue
from multiagents.core.exceptions import UnknownSaga
from multiagents.core.fields import claim_field
from multiagents.core.states import ENDED, Kind
from multiagents.engine.commit_plan import index_keys
from multiagents.engine.coordinator import Coordinator
from multiagents.engine.plain_tasks import unsent
from multiagents.saga.commands import DEADLINE
from multiagents.saga.outcome import has_dead_letters
from multiagents.storage import definitions, outcomes, replies
from multiagents.storage import sagas as store
from multiagents.storage.keys import Due, SagaKeys, Shard
from multiagents.storage.replies import View
from multiagents.storage.sagas import Guard


@dataclass(frozen=True, slots=True)
class Duty:
    """A due member, and what its handler works with."""

    due: Due
    item: Guard
    coordinator: Coordinator
    clock_ms: Callable[[], int]

    @property
    def saga_id(self) -> str:
        """The saga that the member is of."""
        return self.due.owner

    @property
    def keys(self) -> SagaKeys:
        """The saga's keys."""
        return self.coordinator.repository.keys(self.due.owner)

    @property
    def lease_ms(self) -> int:
        """How long a lease lasts; a long duty is hidden from other sweeps for as long."""
        return self.coordinator.repository.settings.lease_ms


Handler = Callable[[Duty], Flow[None]]
"""Acts on one due member.  An error that it raises concerns this member alone."""


async def finish_decision(duty: Duty) -> None:
    """Decide over entries that no commit has covered."""
    keys = duty.keys
    view = await store.load(keys)
    if isinstance(view, View) and view.entries:
        await duty.coordinator.coordinate(duty.saga_id)
        return
    await duty.coordinator.repository.check_damage(keys)
    if view == replies.GONE:
        await store.drop(keys.shard, duty.item, because=(keys.saga, "v", ""))


async def fire_timer(duty: Duty) -> None:
    """Log that a timer is due."""
    (timer,) = duty.due.parts
    if timer == DEADLINE and await _is_before_deadline(duty):
        return
    entry = TimerDue(duty.clock_ms(), timer)
    await duty.coordinator.append(duty.saga_id, entry, guard=duty.item)


async def _is_before_deadline(duty: Duty) -> bool:
    """Whether a saga's deadline is still to come; then put the member back.

    A clock that was ahead makes it due earlier (sweep.lua), and a saga logs its deadline once.
    """
    try:
        saga, workflow = await duty.coordinator.repository.current(duty.saga_id)
    except UnknownSaga:
        return False  # the guarded append takes the member away
    at_ms = saga.created_at + round((workflow.timeout_s or 0) * 1000)
    if at_ms <= duty.clock_ms():
        return False
    keys = duty.keys
    await store.drop(keys.shard, duty.item, because=(keys.saga, "w", saga.version), later_ms=at_ms)
    return True


async def end_lease(duty: Duty) -> None:
    """Log a lost attempt, or publish a plain task whose message its queue had refused."""
    kind, step, attempt, nonce = duty.due.parts
    held = store.Attempt(duty.saga_id, Kind(kind), step, int(attempt), nonce)
    keys, now_ms = duty.keys, duty.clock_ms()
    claim = await store.command(keys, claim_field(held.kind, held.step))
    task = unsent(held.kind, held.step, claim)
    if task is not None and task.nonce == held.nonce and now_ms < task.deadline_ms:
        await duty.coordinator.send_claimed(keys, task)
        return
    lost = Lost(now_ms, *held.ref, held.nonce)
    if not await _is_in_time(duty, lost, claim):
        await duty.coordinator.append(held.saga_id, lost, guard=duty.item)


async def _is_in_time(duty: Duty, lost: Lost, claim: str | None) -> bool:
    """Whether a plain task, which renews no lease, may still run; then put the member back.

    Its lease lasts until its timeout; a clock that was ahead makes it due earlier (sweep.lua).
    """
    keys = duty.keys
    deadline_ms = replies.deadline_of(claim, lost.nonce)
    if claim is None or deadline_ms <= duty.clock_ms():
        return False
    version = await store.pinned(keys)
    if version is None:
        return False
    workflow = await duty.coordinator.repository.workflow(keys.id, version)
    if isinstance(workflow.by_name[lost.step].target(lost.kind), str):
        return False
    because = (keys.work, claim_field(lost.kind, lost.step), claim)
    await store.drop(keys.shard, duty.item, because=because, later_ms=deadline_ms)
    return True


async def purge(duty: Duty) -> None:
    """Remove a saga whose retention is over."""
    keys, repository = duty.keys, duty.coordinator.repository
    view = await store.load(keys)
    if not isinstance(view, View) or view.definition is None:
        await store.drop(keys.shard, duty.item, because=(keys.saga, "w", ""))
        return
    as_read = (keys.saga, "v", view.version)
    saga, workflow = await repository.current(duty.saga_id)
    if saga.state not in ENDED or has_dead_letters(saga):
        await store.drop(keys.shard, duty.item, because=as_read)
        return
    # It may have ended by a faster clock, or ended again: then its retention is not over.
    over_ms = saga.ended_at + repository.settings.retention_ms
    if view.entries or over_ms > duty.clock_ms():
        later_ms = max(over_ms, int(float(duty.item.token)))
        await store.drop(keys.shard, duty.item, because=as_read, later_ms=later_ms)
        return
    tags = (await repository.meta(keys)).get("tags", [])
    indexes = index_keys(keys, workflow.name, tags)
    indexes = (*indexes, keys.shard.state(saga.state), keys.shard.attention)
    later_ms = duty.clock_ms() + duty.lease_ms
    await outcomes.purge(keys, view.version, indexes, later_ms=later_ms)


async def collect_definitions(duty: Duty) -> None:
    """Remove the definitions of a shard that no saga uses."""
    shard = Shard(int(duty.due.owner))
    await definitions.collect(shard, clock_ms=duty.clock_ms, lease_ms=duty.lease_ms)
