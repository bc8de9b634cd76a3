"""How do a decision's commands leave the process?

A commit has already stored each command with the time of the next look at it.  So publishing may
fail: a sweep publishes the command again.  Messages are values here; `transport.courier` hands
them to Celery.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from multiagents.core.attempt_ref import OfAttempt
from multiagents.core.effects import Effect
from multiagents.core.exceptions import MultiAgentsError
from multiagents.core.names import HEADER
from multiagents.core.states import Kind
from multiagents.saga.outcome import SagaOutcome
from multiagents.storage.commit import Letter, RefusedWrite, StoredResult
from multiagents.workflows.workflow import Workflow

UNCONFIRMED_MS = 2000
"""A command whose publishing was not confirmed is looked at again after this long (E10)."""


@dataclass(frozen=True, slots=True)
class Message(OfAttempt):
    """One Celery message for an attempt of a step."""

    saga_id: str
    kind: Kind
    step: str
    attempt: int
    task: str
    queue: str
    version: str
    sent_ms: int
    priority: int | None = None
    plain: bool = False
    """A user's own Celery task: it gets ``args`` and ``kwargs`` and reports by callbacks."""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    task_id: str = ""
    timeout_s: float = 0.0
    """Of a plain task."""
    travelling: Mapping[str, Any] = field(default_factory=dict)
    """Headers of the saga's start, which go with all its messages."""

    @property
    def headers(self) -> dict[str, Any]:
        """The start's headers, and the engine's mark, which names the attempt."""
        mark = [*self.signature, self.version, self.sent_ms]
        return {**self.travelling, HEADER: [*mark, self.timeout_s] if self.plain else mark}

    @property
    def signature(self) -> list[Any]:
        """The arguments of a worker's task."""
        return [self.saga_id, self.kind.value, self.step, self.attempt]


class Unsendable(MultiAgentsError):
    """Celery cannot make a message of a command, and another try would fail too."""

    def __init__(self, task: str, reason: str) -> None:
        super().__init__(task, reason)
        self.task = task
        self.reason = reason
        self.sent = 0
        """How many messages of the same `Publish` went out before."""

    def __str__(self) -> str:
        where = "look at task_queues, task_routes, its annotations and its own options"
        return f"task {self.task!r} cannot be sent ({self.reason}); {where}"


class NotTaken(MultiAgentsError):
    """The server refuses a saga's write to a key, so its commands stay in the outbox.

    A sweep tries again, since an operator may mend the key or the user's rights.
    """

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key = key
        self.reason = reason
        self.sent = 0
        """How many messages of the same `Publish` went out before."""

    def __str__(self) -> str:
        fix = "grant the right, or move the key if it is not the broker's; see `multiagents doctor`"
        return f"{self.key!r} cannot be written ({self.reason}): {fix}"


def not_taken(refused: Sequence[RefusedWrite]) -> NotTaken | None:
    """The error for the first of these; None if there are none."""
    return NotTaken(refused[0].key, refused[0].reason) if refused else None


LetterOf = Callable[[Message], Letter | None]
"""Writes a message for a queue on the store's own server, if that is where the broker is."""


def no_letter(message: Message) -> Letter | None:
    """For brokers elsewhere: every message goes through Celery."""
    return None


@dataclass(frozen=True, slots=True)
class Publish(Effect[bool]):
    """Effect: publish these messages; the reply is whether the broker took all of them."""

    messages: tuple[Message, ...]


AnswerOf = Callable[[SagaOutcome], list[StoredResult] | None]
"""Writes an outcome for results on the store's own server, if that is where they are."""


def no_answer(end: SagaOutcome) -> list[StoredResult] | None:
    """For results elsewhere: every outcome goes through Celery."""
    return None


def timeout_of(workflow: Workflow, step: str, kind: Kind, default_s: float | None) -> float | None:
    """Seconds that an attempt may take: the step's setting, else the worker's."""
    spec = workflow.by_name[step]
    chosen = spec.timeout_s if kind is Kind.RUN else spec.compensation_timeout_s
    return default_s if chosen is None else chosen


def outbox_value(sent_ms: int, sends: int) -> str:
    """The value of an outbox field: when its command was last published, and how often.

    ``0|0``: not published, or not confirmed; ``at|0``: withheld since then, until a worker has a
    slot for it; ``0|n``: given back by a worker without its function after n publications.
    """
    return f"{sent_ms}|{sends}"


def unsent(now_ms: int) -> tuple[str, int]:
    """The value of a command about to be published, and when to look at it if that fails."""
    return outbox_value(0, 0), now_ms + UNCONFIRMED_MS


def parse_outbox_value(value: str) -> tuple[int, int]:
    """When a command was last published, Unix ms, and how often."""
    sent_ms, sends = value.split("|")
    return int(sent_ms), int(sends)
