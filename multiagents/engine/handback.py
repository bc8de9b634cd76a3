"""What becomes of a command whose message came to a worker without its function?

Workers that consume one queue may have different functions: during a roll-out, or by design.  A
worker without the function gives the command back to its outbox, and a sweep publishes it again.

- If a running worker of the queue has the function, the command is published again soon.  The
  delay grows with each arrival here, up to `LATER_MS`.  So the command finds its worker quickly,
  and a busy worker does not make the others spin.
- If no running worker of the queue has it, the command waits for a lease and is marked as wanted.
  A worker that brings the function makes wanted commands due (`wake`).  If no worker at all has
  the function, the third publication parks the command (rule 9).

A process may die anywhere: the outbox holds the command and when it was published, and a sweep
publishes it again after a lease.  Only the latest message of a command can give it back, so
messages never multiply.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from multiagents.core.attempt_ref import OfAttempt
from multiagents.core.clock import Clock
from multiagents.core.fields import outbox_field
from multiagents.core.marks import is_text, read_mark
from multiagents.core.settings import Settings
from multiagents.core.states import Kind
from multiagents.engine.catalog import Catalog
from multiagents.engine.messages import UNCONFIRMED_MS
from multiagents.storage import keys as k
from multiagents.storage import outbox
from multiagents.storage.client import UNREACHABLE, StoreError
from multiagents.storage.keys import SagaKeys, Shard

SOON_MS, LATER_MS = 20, 1000
"""Delay until a command is published again: for each arrival here, and at most."""
SPACE_MS = 2
"""Between two commands of one worker: it gives back 500 a second at most."""
MOST_SPACED_MS = 60_000
"""A slot farther ahead dates from before the clock was set back."""
MOST_DOUBLED = 4
"""No command waits longer than 2 ** n leases for a worker that consumes its queue."""
REMEMBERED = 10_000
"""Commands whose arrivals a worker counts."""
TELL_MS = 300_000
"""Between two log lines about one function."""
SHOWN = 3

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Foreign(OfAttempt):
    """A command's message, in a worker without its function."""

    saga_id: str
    kind: Kind
    step: str
    attempt: int
    sent_ms: int
    function: str
    queue: str

    @property
    def field(self) -> str:
        """The outbox field of its command."""
        return outbox_field(self.ref)


def foreign_of(name: str, headers: Any, queue: object) -> Foreign | None:
    """The command of a message; None if it is not for a worker function."""
    mark = read_mark(headers)
    if mark is None or mark.timeout_s is not None or not (is_text(name) and is_text(queue)):
        return None
    sent_ms = int(mark.sent_ms)
    return Foreign(mark.saga_id, *mark.ref, sent_ms, name, queue)


class HandBack:
    """Gives commands back, and wakes commands that wait.  For one thread of one process."""

    def __init__(self, settings: Settings, clock: Clock, catalog: Catalog) -> None:
        self._settings = settings
        self._clock = clock
        self._catalog = catalog
        self._came: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._slot_ms = 0
        self._told_ms: dict[tuple[str, str], int] = {}

    async def hand_back(self, messages: Sequence[Foreign]) -> list[Foreign]:
        """Give these back; return those to give again, whose publication is not confirmed yet.

        A new worker announces its functions, then wakes the marked commands.  This method marks a
        command, then looks for an announcement.  So neither misses the other.
        """
        if not messages:
            return []
        await self._catalog.keep_up()
        given, waiting, left = [], [], []
        for message in messages:
            has_home = self._has_home(message)
            reply = await self._give(message, has_home=has_home)
            if reply == outbox.UNCONFIRMED:
                left.append(message)
            elif reply:
                self._remember(message)
                given.append(message)
                waiting += [] if has_home else [message]
        if waiting:
            await self._look_again(waiting)
        self._tell(given)
        now_ms = self._clock.now_ms()
        # A message from the future was sent by a clock that was ahead: a sweep handles it.
        return [each for each in left if abs(now_ms - each.sent_ms) < 2 * UNCONFIRMED_MS]

    @property
    def functions(self) -> tuple[str, ...]:
        """The worker functions of this process."""
        return self._catalog.local_names

    async def wake(self, shards: Iterable[Shard], queues: Sequence[str]) -> None:
        """Make due the commands on these queues that wait for a function of this process."""
        for shard in shards if self.functions else ():
            call = outbox.wake(shard, queues, self.functions, now_ms=self._clock.now_ms())
            woken = await call
            if woken:
                log.info("woke steps that waited for functions of this worker", count=woken)

    async def _look_again(self, waiting: list[Foreign]) -> None:
        try:
            await self._catalog.refresh(force=True)
        except UNREACHABLE:
            return  # the first of several servers is away, so no worker can announce anything
        for message in filter(self._has_home, waiting):
            await self._give(message, has_home=True)

    def _has_home(self, message: Foreign) -> bool:
        return bool(self._catalog.crew(message.queue, message.function))

    async def _give(self, message: Foreign, *, has_home: bool) -> int:
        """The script's reply; 0 also if the store refuses calls about this saga."""
        keys = SagaKeys(message.saga_id, self._settings.shards)
        member = k.due_outbox(message.saga_id, message.field)
        now_ms, count = self._clock.now_ms(), self._came.get(_what(message), 0) + 1
        due_ms = self._soon(now_ms, count) if has_home else self._later(now_ms, count, message)
        call = outbox.hand_back(
            keys,
            message.field,
            sent_ms=message.sent_ms,
            due_ms=due_ms,
            wanted=k.wanted(message.queue, message.function, member),
            has_home=has_home,
            now_ms=now_ms,
        )
        try:
            return await call
        except UNREACHABLE:
            raise
        except StoreError as error:  # of this saga alone
            log.error("could not give a step back", saga=message.saga_id, error=str(error))
            return 0

    def _soon(self, now_ms: int, count: int) -> int:
        next_ms = self._slot_ms + SPACE_MS
        was_set_back = next_ms > now_ms + MOST_SPACED_MS
        self._slot_ms = now_ms if was_set_back else max(now_ms, next_ms)
        return self._slot_ms + min(LATER_MS, SOON_MS * count)

    def _later(self, now_ms: int, count: int, message: Foreign) -> int:
        parks = self._catalog.has_no_worker(message.function)
        doubled = 0 if parks else min(count - 1, MOST_DOUBLED)
        return now_ms + (self._settings.lease_ms << doubled)

    def _remember(self, message: Foreign) -> None:
        """Count how often this command came here."""
        what = _what(message)
        self._came[what] = self._came.get(what, 0) + 1
        self._came.move_to_end(what)
        if len(self._came) > REMEMBERED:
            self._came.popitem(last=False)

    def _tell(self, messages: Sequence[Foreign]) -> None:
        """One line for each function, now and then."""
        now_ms = self._clock.now_ms()
        for queue, function in dict.fromkeys((each.queue, each.function) for each in messages):
            told_ms = self._told_ms.get((queue, function))
            if told_ms is not None and 0 <= now_ms - told_ms < TELL_MS:
                continue
            self._told_ms[queue, function] = now_ms
            crew = list(self._catalog.crew(queue, function))
            who = ", ".join(crew[:SHOWN]) or "no running worker of this queue"
            log.warning(
                "this worker consumes a queue without one of its functions, and gives its steps"
                " back: import the function's module here, or give the step a queue of its own",
                function=function,
                queue=queue,
                has_it=who,
            )


def _what(message: Foreign) -> tuple[str, str]:
    return message.saga_id, message.field
