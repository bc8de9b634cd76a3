"""Where do messages wait in a simulated system?

They wait in a broker that loses, doubles and reorders them.  Messages through Celery are in the
broker's memory.  With direct publish, commits put messages into lists on the sagas' own server,
which can lose them with everything else.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from random import Random

from multiagents.core.entries import Succeeded
from multiagents.core.states import Kind
from multiagents.engine.messages import Message, NotTaken, Unsendable
from multiagents.engine.queue_heads import Backlog
from multiagents.lab.simulator.faults import NO_FAULTS
from multiagents.lab.simulator.store import Store
from multiagents.storage.commit import Letter
from multiagents.storage.sagas import Attempt

QUEUES = ("io", "llm")
LISTS = tuple(f"queue:{name}" for name in QUEUES)
REFUSING = "queue:refusing"
"""A key of another type than a list: the server refuses a letter for it."""
SENDING = frozenset({"start", "commit", "advance", "publish", "handover"})
"""Scripts that may put letters into the lists."""
REDELIVERED_MS = (0, 0, 5000, 20_000)
"""Milliseconds from the first delivery to a second one."""
BLIND = 0.2
"""How often a broker cannot report the length of a queue."""


@dataclass(frozen=True, slots=True)
class Returned:
    """The link of a plain task, with its result."""

    saga_id: str
    task_id: str
    result: str
    report: Succeeded
    """The report that the engine should record."""
    held: tuple[Attempt, ...]
    """The attempts that the task held at its start."""


Mail = Message | Returned


class SimulatedBroker:
    """Takes messages, and delivers them in any order."""

    def __init__(self, rng: Random, seen: Counter[str], store: Store, *, letters: bool) -> None:
        self.faults = NO_FAULTS
        self.messages: list[Mail] = []
        """The messages through Celery."""
        self._redelivered: list[tuple[int, Mail]] = []
        """Second deliveries, each with its time in Unix ms."""
        self._now_ms = 0
        self._rng, self._seen, self._store = rng, seen, store
        self.has_lists = letters
        self.refusing: dict[str, int] = {}
        """Queue or saga -> the Unix ms until which its messages are refused."""
        if letters:
            store.clients[0].hset(REFUSING, "a team's own", "value")
        # Commits cannot publish directly into the other queues.
        self._accepted = {name for name in QUEUES if rng.random() > 0.15}
        self._lengths: list[int] | None = [0] * len(LISTS)

    # ---- what comes in ----

    def letter_of(self, message: Message) -> Letter | None:
        """The letter for a list; None if the message must go through Celery."""
        if not self.has_lists or message.queue not in self._accepted:
            return None
        self._refuse(message)
        if self._is_refused(message):
            return Letter(REFUSING, _text(message))
        return Letter(f"queue:{message.queue}", _text(message))

    def publish(self, messages: tuple[Message, ...]) -> bool:
        """Take messages, of which some are lost and some doubled; False: the call fails."""
        for sent, message in enumerate(messages):
            self._refuse(message)
            if self._is_refused(message):
                error = NotTaken(message.queue, "injected")
                error.sent = sent
                raise error
            self.put(message)
        return self._rng.random() >= self.faults.fail_before

    def _refuse(self, message: Message) -> None:
        """Sometimes raise, as a router or an option of the user's task may."""
        if message.plain and self._happens(self.faults.refuse_message, "message refused"):
            raise Unsendable(message.task, "injected")

    def _is_refused(self, message: Message) -> bool:
        until_ms = (self.refusing.get(what, 0) for what in (message.queue, message.saga_id))
        return bool(self.refusing) and any(each > self._now_ms for each in until_ms)

    def put(self, message: Mail) -> None:
        """Take one message."""
        if self._happens(self.faults.lose_message, "message lost"):
            return
        self.messages.append(message)
        if self._happens(self.faults.double_message, "message doubled"):
            late_ms = self._rng.choice(REDELIVERED_MS)
            self._redelivered.append((self._now_ms + late_ms, message))
        if self._happens(self.faults.lose_all_messages, "all messages lost"):
            self.messages.clear()

    def set_clock_back(self, ms: int) -> None:
        """Set the clock back; the gap between two deliveries stays the same."""
        self._now_ms -= ms
        self._redelivered = [(at - ms, mail) for at, mail in self._redelivered]

    def stir(self) -> None:
        """Read the lists again, because a script may have added letters."""
        self._lengths = None

    # ---- what goes out ----

    def waiting(self, now_ms: int) -> int:
        """The number of messages that can be delivered now."""
        self._now_ms = now_ms
        if self._redelivered:
            self._redeliver()
        if not self.has_lists or self._store.is_away(0, now_ms):
            return len(self.messages)
        return len(self.messages) + sum(self._lists())

    @property
    def is_empty(self) -> bool:
        """Whether no message waits, and none will be redelivered."""
        return not (self.messages or self._redelivered or (self.has_lists and sum(self._lists())))

    def _redeliver(self) -> None:
        due = [each for each in self._redelivered if each[0] <= self._now_ms]
        self._redelivered = [each for each in self._redelivered if each[0] > self._now_ms]
        self.messages += [mail for _, mail in due]

    def take(self, now_ms: int) -> Mail | None:
        """Any of the messages; None if it is lost on its way."""
        at = self._rng.randrange(self.waiting(now_ms))
        if at < len(self.messages):
            return self.messages.pop(at)
        at -= len(self.messages)
        for name, length in zip(LISTS, self._lists(), strict=True):
            if at < length:
                return self._take_letter(name, at)
            at -= length
        raise AssertionError("the lists have fewer letters than at the last read")

    def _take_letter(self, name: str, at: int) -> Message | None:
        client = self._store.clients[0]
        text = client.lindex(name, at)
        if not self._happens(self.faults.double_message, "letter doubled"):
            client.lrem(name, 1, text)
            self.stir()
        if self._happens(self.faults.lose_all_messages, "all letters lost"):
            client.delete(*LISTS)
            self.stir()
        lost = self._happens(self.faults.lose_message, "letter lost")
        return None if lost else message_of(text)

    def _lists(self) -> list[int]:
        if self._lengths is None:
            pipe = self._store.clients[0].pipeline(transaction=False)
            for name in LISTS:
                pipe.llen(name)
            self._lengths = pipe.execute()
        return self._lengths

    def backlog(self, queue: str) -> Backlog:
        """The length of a queue and its oldest message; sometimes unknown."""
        if self._rng.random() < BLIND:
            return Backlog(None)
        found = [m.sent_ms for m in self.messages if isinstance(m, Message) and m.queue == queue]
        length = len(found)
        if self.has_lists and queue in QUEUES:
            letters = self._lists()[QUEUES.index(queue)]
            length += letters
            if letters:
                oldest = self._store.clients[0].lindex(f"queue:{queue}", -1)
                found.append(message_of(oldest).sent_ms)
        return Backlog(length, min(found, default=None))

    def _happens(self, probability: float, what: str) -> bool:
        if probability <= 0 or self._rng.random() >= probability:
            return False
        self._seen[what] += 1
        return True


def _text(message: Message) -> str:
    row = [*message.signature, message.task, message.queue, message.version, message.sent_ms]
    rest = [message.priority, message.plain, message.args, message.kwargs, message.task_id]
    return json.dumps([*row, *rest])


def message_of(text: bytes | str) -> Message:
    """The message of a letter."""
    saga_id, kind, *rest = json.loads(text)
    return Message(saga_id, Kind(kind), *rest)
