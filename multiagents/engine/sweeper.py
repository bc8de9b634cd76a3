"""What happens to what is due, late or lost?

One sweep lists the due members of a shard and acts on each: it fires timers, ends leases, sends
commands again, finishes decisions that a dead process left, and removes what is past its
retention.  Nothing is taken out before it is dealt with (E2), so a sweeper may die anywhere.

The thread that repeats this is a worker's bootstep; see `hosting.bootstep`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from multiagents.core.effects import Effect, Flow
from multiagents.core.entries import Failure, Lost, TimerDue, Unroutable
from multiagents.core.fields import OUTBOX_END, claim_field, outbox_field, parse_outbox_field
from multiagents.core.states import ENDED, Kind
from multiagents.engine import messages
from multiagents.engine.cache import Recent
from multiagents.engine.commit_plan import index_keys
from multiagents.engine.coordinator import Coordinator
from multiagents.engine.messages import Message, not_taken
from multiagents.engine.plain_tasks import unsent
from multiagents.saga.outcome import has_dead_letters
from multiagents.storage import definitions, failures, outbox, outcomes, replies
from multiagents.storage import keys as k
from multiagents.storage import sagas as store
from multiagents.storage.keys import SagaKeys, Shard
from multiagents.storage.replies import View
from multiagents.storage.sagas import Guard
from multiagents.workflows.step import worker_name

BATCH = 100
"""Members dealt with in one sweep; more are left for the next, which follows at once."""
LOOK_MS = 1000
"""So long a look at a queue is good for all that waits in it: with a hundred thousand messages in
it, a look for each would take half a worker's main process, as measured."""
LATER = 4
"""What has waited behind others is looked for again after a quarter of that time."""
MOST_MOVES = 6
"""A command behind an unknown message waits 2 ** n leases at most before it is sent again."""
UNROUTABLE_AFTER = 3
"""A command is parked when it was sent so often and no running worker knows its name (rule 9)."""


UNKNOWN_WORKER = "UnknownWorker"
"""Type of the error with which it is parked."""


@dataclass(frozen=True, slots=True)
class QueueHead(Effect["Backlog"]):
    """Effect: look at a queue; the reply is a `Backlog`."""

    queue: str
    priority: int | None
    broker: str = ""
    """The kind of broker that its workers say they have, such as "redis"; empty: not known."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a queue holds.  ``head_sent_ms``: of the oldest message; None if it does not say."""

    length: int | None
    """None: this broker cannot be looked into."""
    head_sent_ms: int | None = None
    is_whole: bool = False
    """It is of all priorities together: this broker has one queue for them."""


class Sweeper:
    """Deals with what is due.  Thread-safe."""

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        nobody_knows: Callable[[str], bool],
        clock_ms: Callable[[], int],
        ask_around: Callable[[], Flow[None]] | None = None,
        batch: int = BATCH,
    ) -> None:
        self.batch = batch
        self._coordinator = coordinator
        self._repository = coordinator.repository
        self._settings = coordinator.repository.settings
        self._nobody_knows = nobody_knows
        self._ask_around = ask_around
        self._clock_ms = clock_ms
        self._looks: Recent[QueueHead, tuple[int, Backlog]] = Recent()

    async def due(self, shard: Shard) -> tuple[Guard, ...]:
        """What is due on a shard now, hidden from other sweepers for a moment."""
        call = store.sweep(
            shard, self._clock_ms(), limit=self.batch, lease_ms=self._settings.lease_ms
        )
        return await call

    async def tick(self, shard: Shard) -> None:
        """Note that sweeping goes on: a batch that takes long must not look like a gap (E9)."""
        lease_ms = self._settings.lease_ms
        await store.sweep(shard, self._clock_ms(), limit=0, lease_ms=lease_ms)

    async def put_off(self, shard: Shard, item: Guard, error: Exception) -> int:
        """Look later at what could not be handled; how often that has been so, see `put_off`."""
        why = f"{type(error).__name__}: {error}"
        return await failures.put_off(shard, item, now_ms=self._clock_ms(), why=why)

    async def handle(self, item: Guard) -> None:
        """Act on one due member.  Raises what goes wrong, which concerns this member alone."""
        match k.parse_due(item.member):
            case "d", saga_id, _:
                await self._dirty(saga_id, item)
            case "t", saga_id, (timer,):
                entry = TimerDue(self._clock_ms(), timer)
                await self._coordinator.append(saga_id, entry, guard=item)
            case "l", saga_id, (kind, step, attempt, nonce):
                held = store.Attempt(saga_id, Kind(kind), step, int(attempt), nonce)
                await self._lease(held, item)
            case "o", saga_id, (name,):
                await self._send_again(saga_id, name, item)
            case "x", saga_id, _:
                await self._purge(saga_id, item)
            case "g", number, _:
                lease_ms = self._settings.lease_ms
                shard = Shard(int(number))
                await definitions.collect(shard, clock_ms=self._clock_ms, lease_ms=lease_ms)
            case None:
                raise ValueError("no due member that the engine has written")

    async def _dirty(self, saga_id: str, item: Guard) -> None:
        keys = self._repository.keys(saga_id)
        view = await store.load(keys)
        if isinstance(view, View) and view.entries:
            await self._coordinator.coordinate(saga_id)
            return
        await self._repository.check_damage(keys)
        if view == replies.GONE:
            await store.drop(keys.shard, item, because=(keys.saga, "v", ""))

    async def _lease(self, held: store.Attempt, item: Guard) -> None:
        """An attempt is lost; or its message, a plain task's, was refused by the queue."""
        keys, now_ms = self._repository.keys(held.saga_id), self._clock_ms()
        claim = await store.command(keys, claim_field(held.kind, held.step))
        task = unsent(held.kind, held.step, claim)
        if task is not None and task.nonce == held.nonce and now_ms < task.deadline_ms:
            await self._coordinator.send_claimed(keys, task)
            return
        lost = Lost(now_ms, held.kind, held.step, held.attempt, held.nonce)
        if not await self._is_in_time(keys, lost, item, claim):
            await self._coordinator.append(held.saga_id, lost, guard=item)

    async def _is_in_time(self, keys: SagaKeys, lost: Lost, item: Guard, claim: str | None) -> bool:
        """Whether a plain task may still be running, which renews nothing; then it is put back.

        Its lease lasts until its time-out, and is due before where a clock was ahead (sweep.lua).
        """
        deadline_ms = replies.deadline_of(claim, lost.nonce)
        if claim is None or deadline_ms <= self._clock_ms():
            return False
        version = await store.pinned(keys)
        if version is None:
            return False
        workflow = await self._repository.workflow(keys, version)
        if isinstance(messages.target_of(workflow.by_name[lost.step], lost.kind), str):
            return False
        because = (keys.work, claim_field(lost.kind, lost.step), claim)
        await store.drop(keys.shard, item, because=because, later_ms=deadline_ms)
        return True

    async def _send_again(self, saga_id: str, name: str, item: Guard) -> None:
        keys = self._repository.keys(saga_id)
        value = await store.command(keys, name)
        version = await store.pinned(keys)
        if value is None or version is None:
            missing = (keys.work, name) if value is None else (keys.saga, "w")
            await store.drop(keys.shard, item, because=(*missing, ""))
            return
        workflow = await self._repository.workflow(keys, version)
        if name == OUTBOX_END:
            refused = await self._coordinator.ends.deliver_again(keys, workflow)
            if error := not_taken(refused):
                raise error
            return
        sent_ms, sends = messages.parse_outbox_value(value)
        kind, step, attempt = parse_outbox_field(name)
        target = messages.target_of(workflow.by_name[step], kind)
        if isinstance(target, str) and sends >= UNROUTABLE_AFTER and await self._is_unknown(target):
            await self._park(saga_id, (kind, step, attempt), target)
            return
        message = self._coordinator.dispatcher.message(
            keys, workflow, (kind, step, attempt), worker_name(target)
        )
        # Not known to be sent, or given back by a worker: no message of it waits in its queue.
        if not sent_ms or not await self._still_queued(message, keys, name, value):
            await self._coordinator.send_again(keys, workflow, {name: sends})

    async def _is_unknown(self, worker: str) -> bool:
        """Whether no running worker knows this name; what was last heard may be old."""
        if self._ask_around is not None and self._nobody_knows(worker):
            await self._ask_around()
        return self._nobody_knows(worker)

    async def _park(self, saga_id: str, what: tuple[Kind, str, int], worker: str) -> None:
        kind, step, attempt = what
        reason = f"no running worker knows {worker!r}: deploy it, then retry this step"
        error = Failure(UNKNOWN_WORKER, reason)
        entry = Unroutable(self._clock_ms(), kind, step, attempt, error)
        taken = outbox_field(kind, step, attempt)
        await self._coordinator.append(saga_id, entry, taken=taken)

    async def _still_queued(self, message: Message, keys: SagaKeys, name: str, value: str) -> bool:
        """Whether the message may well be waiting in its queue; then its time is moved (E10)."""
        sent_ms, sends = messages.parse_outbox_value(value)
        backlog = await self._look(QueueHead(message.queue, message.priority))
        now_ms, lease_ms = self._clock_ms(), self._settings.lease_ms
        if backlog.length == 0:
            return False
        if backlog.length and backlog.head_sent_ms is not None:
            waits = backlog.head_sent_ms <= sent_ms <= now_ms + lease_ms  # else a clock was ahead
        else:
            # A head that does not say when it was sent, or a broker that knows no heads:
            # wait twice as long each time, so that re-sending stays rare but does happen.
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

    async def _purge(self, saga_id: str, item: Guard) -> None:
        keys = self._repository.keys(saga_id)
        view = await store.load(keys)
        if not isinstance(view, View) or view.definition is None:
            await store.drop(keys.shard, item, because=(keys.saga, "w", ""))
            return
        as_read = (keys.saga, "v", view.version)
        saga, workflow = await self._repository.current(saga_id)
        if saga.state not in ENDED or has_dead_letters(saga):
            await store.drop(keys.shard, item, because=as_read)
            return
        # It may have ended by a faster clock than this one, or again: then it is not over yet.
        over_ms = saga.ended_at + self._settings.retention_ms
        if view.entries or over_ms > self._clock_ms():
            later_ms = max(over_ms, int(float(item.token)))
            await store.drop(keys.shard, item, because=as_read, later_ms=later_ms)
            return
        tags = (await self._repository.meta(keys)).get("tags", [])
        indexes = index_keys(keys, workflow.name, tags)
        indexes = (*indexes, keys.shard.state(saga.state), keys.shard.attention)
        later_ms = self._clock_ms() + self._settings.lease_ms
        await outcomes.purge(keys, view.version, indexes, later_ms=later_ms)
