"""Which command is published again, and which has no worker?

A command stays in the outbox until a worker claims it.  Where its message may still wait in its
queue, the next look is put off instead (E10).
"""

from __future__ import annotations

from collections.abc import Callable

from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.effects import Flow
from multiagents.core.entries import Failure, Unroutable
from multiagents.core.fields import OUTBOX_END, outbox_field, parse_outbox_field
from multiagents.engine import messages
from multiagents.engine.cache import Recent
from multiagents.engine.coordinator import Coordinator
from multiagents.engine.duties import Duty
from multiagents.engine.messages import Message, not_taken
from multiagents.engine.queue_heads import Backlog, QueueHead
from multiagents.storage import outbox
from multiagents.storage import sagas as store
from multiagents.storage.keys import SagaKeys
from multiagents.workflows.step import worker_name

LOOK_MS = 1000
"""How long one look at a queue serves all its commands.  With 100,000 messages, a look for each
took half the time of a worker's main process, as measured."""
LATER = 4
"""A command that has waited behind others is looked at again after a quarter of that time."""
MOST_MOVES = 6
"""A command behind an unknown message waits 2 ** n leases at most before it is published again."""
UNROUTABLE_AFTER = 3
"""Publications after which a command that no running worker can do is parked (rule 9)."""

UNKNOWN_WORKER = "UnknownWorker"
"""Error type of such a parked command."""


class Resender:
    """Deals with commands that no worker has claimed in time.  Thread-safe."""

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        has_no_worker: Callable[[str], bool],
        clock_ms: Callable[[], int],
        refresh: Callable[[], Flow[None]] | None = None,
    ) -> None:
        self._coordinator = coordinator
        self._repository = coordinator.repository
        self._settings = coordinator.repository.settings
        self._has_no_worker = has_no_worker
        self._refresh = refresh
        self._clock_ms = clock_ms
        self._looks: Recent[QueueHead, tuple[int, Backlog]] = Recent()

    async def send_again(self, duty: Duty) -> None:
        """Publish a command again, put the next look at it off, or park it."""
        (name,) = duty.due.parts
        keys = duty.keys
        value = await store.command(keys, name)
        version = await store.pinned(keys)
        if value is None or version is None:
            missing = (keys.work, name) if value is None else (keys.saga, "w")
            await store.drop(keys.shard, duty.item, because=(*missing, ""))
            return
        workflow = await self._repository.workflow(keys.id, version)
        if name == OUTBOX_END:
            refused = await self._coordinator.ends.deliver_again(keys, workflow)
            if error := not_taken(refused):
                raise error
            return
        sent_ms, sends = messages.parse_outbox_value(value)
        ref = parse_outbox_field(name)
        target = workflow.by_name[ref.step].target(ref.kind)
        if isinstance(target, str) and sends >= UNROUTABLE_AFTER and await self._is_unknown(target):
            await self.park(duty.saga_id, ref, target)
            return
        message = self._coordinator.dispatcher.message(keys, workflow, ref, worker_name(target))
        # Not confirmed, or given back by a worker: no message of it waits in its queue.
        if not sent_ms or not await self._still_queued(message, keys, name, value):
            await self._coordinator.send_again(keys, workflow, {name: sends})

    async def _is_unknown(self, worker: str) -> bool:
        """Whether no running worker has this function; an old answer is refreshed first."""
        if self._refresh is not None and self._has_no_worker(worker):
            await self._refresh()
        return self._has_no_worker(worker)

    async def park(self, saga_id: str, ref: AttemptRef, worker: str) -> None:
        """Park a step or undo whose function no running worker has (rule 9)."""
        reason = f"no running worker knows {worker!r}: deploy it, then retry this step"
        error = Failure(UNKNOWN_WORKER, reason)
        entry = Unroutable(self._clock_ms(), *ref, error)
        taken = outbox_field(ref)
        await self._coordinator.append(saga_id, entry, taken=taken)

    async def _still_queued(self, message: Message, keys: SagaKeys, name: str, value: str) -> bool:
        """Whether the message may still wait in its queue; then put the next look off (E10)."""
        sent_ms, sends = messages.parse_outbox_value(value)
        backlog = await self._look(QueueHead(message.queue, message.priority))
        now_ms, lease_ms = self._clock_ms(), self._settings.lease_ms
        if backlog.length == 0:
            return False
        if backlog.length and backlog.head_sent_ms is not None:
            waits = backlog.head_sent_ms <= sent_ms <= now_ms + lease_ms  # else a clock was ahead
        else:
            # The head has no sending time, or the broker shows no heads: wait twice as long each
            # time, so that publishing again stays rare but does happen.
            waits = -lease_ms <= now_ms - sent_ms < lease_ms * 2 ** min(sends, MOST_MOVES)
        if waits:
            later_ms = max(lease_ms, (now_ms - sent_ms) // LATER)
            await outbox.published(keys, {name: (value, now_ms + later_ms)})
        return waits

    async def _look(self, queue: QueueHead) -> Backlog:
        now_ms = self._clock_ms()
        looked_ms, backlog = self._looks.get(queue) or (0, Backlog(None))
        if not 0 <= now_ms - looked_ms < LOOK_MS:
            backlog = await queue
            self._looks.put(queue, (now_ms, backlog))
        return backlog
