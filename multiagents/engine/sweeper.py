"""What happens to what is due, late or lost?

One sweep lists the due members of a shard and acts on each: it fires timers, ends leases,
publishes commands again, finishes the decisions of a dead process, and removes sagas past their
retention.  A member stays due until it is dealt with (E2), so a sweeper may die anywhere.

The thread that repeats this is a worker's bootstep; see `hosting.bootstep`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from multiagents.core.effects import Flow
from multiagents.engine import duties
from multiagents.engine.coordinator import Coordinator
from multiagents.engine.duties import Duty, Handler
from multiagents.engine.resender import Resender
from multiagents.storage import failures
from multiagents.storage import keys as k
from multiagents.storage import sagas as store
from multiagents.storage.keys import DueKind, Shard
from multiagents.storage.sagas import Guard

BATCH = 100
"""Members dealt with in one sweep; more are left for the next, which follows at once."""


class Sweeper:
    """Handles due members.  Thread-safe."""

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        has_no_worker: Callable[[str], bool],
        clock_ms: Callable[[], int],
        refresh: Callable[[], Flow[None]] | None = None,
        batch: int = BATCH,
    ) -> None:
        self.batch = batch
        self._coordinator = coordinator
        self._settings = coordinator.repository.settings
        self._clock_ms = clock_ms
        self.resender = Resender(
            coordinator, has_no_worker=has_no_worker, clock_ms=clock_ms, refresh=refresh
        )
        self.handlers: Mapping[DueKind, Handler] = {
            DueKind.DIRTY: duties.finish_decision,
            DueKind.OUTBOX: self.resender.send_again,
            DueKind.LEASE: duties.end_lease,
            DueKind.TIMER: duties.fire_timer,
            DueKind.PURGE: duties.purge,
            DueKind.DEFINITIONS: duties.collect_definitions,
        }
        """One for each kind of due member."""

    async def due(self, shard: Shard) -> tuple[Guard, ...]:
        """The due members of a shard, hidden from other sweepers for a moment."""
        call = store.sweep(
            shard, self._clock_ms(), limit=self.batch, lease_ms=self._settings.lease_ms
        )
        return await call

    async def tick(self, shard: Shard) -> None:
        """Record that sweeping goes on: a batch that takes long must not look like a gap (E9)."""
        lease_ms = self._settings.lease_ms
        await store.sweep(shard, self._clock_ms(), limit=0, lease_ms=lease_ms)

    async def put_off(self, shard: Shard, item: Guard, error: Exception) -> int:
        """Put off a member that could not be handled; returns how often, see `failures.put_off`."""
        why = f"{type(error).__name__}: {error}"
        return await failures.put_off(shard, item, now_ms=self._clock_ms(), why=why)

    async def handle(self, item: Guard) -> None:
        """Act on one due member.  An error that it raises concerns this member alone."""
        due = k.parse_due(item.member)
        if due is None:
            raise ValueError("not a due member of the engine")
        await self.handlers[due.kind](Duty(due, item, self._coordinator, self._clock_ms))
