"""What does a commit write?

A `Commit` is a decision in the form that the scripts take.  `engine` makes it, and only `engine`
parses its texts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

from multiagents.core.entries import Entry, encode
from multiagents.core.fields import claim_field, parse_outbox_field
from multiagents.core.ports import Waiting
from multiagents.core.states import SagaState
from multiagents.storage import keys as k
from multiagents.storage.calls import Arg
from multiagents.storage.keys import SagaKeys


class Letter(NamedTuple):
    """A message in the form of the broker's list on this server."""

    queue: str
    text: str


class RefusedWrite(NamedTuple):
    """A write under a foreign key that the server refused a script."""

    field: str
    """The unsent command: a field of the outbox, or of a plain task's claim."""
    key: str
    """The broker's list, or the result's key."""
    reason: str


class StoredResult(NamedTuple):
    """A result in the form of Celery's backend on this server; ``expires_s`` 0 = never."""

    key: str | bytes
    text: str
    expires_s: int


@dataclass(slots=True)
class Commit:
    """A decision in the form that a commit writes."""

    version: str
    """The new version: random, so a state that the server lost never matches (E5)."""
    cursor: str
    head: str
    now_ms: int
    created_at: int
    state_before: SagaState | None
    state: SagaState
    steps: list[tuple[str, str]] = field(default_factory=list)
    decided: list[Entry] = field(default_factory=list)
    """Entries that the decision includes already; the commit writes them to the log."""
    outbox: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Outbox field -> value, due time."""
    letters: dict[str, Letter] = field(default_factory=dict)
    """By outbox field: the messages that the commit itself puts into a queue."""
    held: set[str] = field(default_factory=set)
    """Outbox fields that are withheld."""
    withdrawals: dict[str, Entry] = field(default_factory=dict)
    due: dict[str, int] = field(default_factory=dict)
    cleared: list[str] = field(default_factory=list)
    claims: dict[str, str] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)
    """Outbox fields that this commit claims itself."""
    adopted: dict[str, str] = field(default_factory=dict)
    """Data field of a late result that counts from now on -> its field of results."""
    outcome: tuple[str, ...] | None = None
    """Data fields of the outcome, if its delivery is due now."""
    waiting: list[Waiting] = field(default_factory=list)
    """Changes to the indexes of dead letters and attention; empty for a healthy saga."""

    @property
    def moves(self) -> bool:
        """Whether the saga's state changes."""
        return self.state_before is not self.state


def entry_key(entry: Entry) -> bytes:
    """The key that marks an entry as logged (E4): 64 bits of a hash of its id.

    Among a thousand entries, two of a saga agree once in some 10^13 sagas.
    """
    return blake2b(entry.id.encode(), digest_size=8).digest()


def plan_args(saga: SagaKeys, plan: Commit) -> list[Arg]:
    """The arguments in the order of `apply` in lib.lua."""
    before = plan.state_before.value if plan.state_before and plan.moves else ""
    args: list[Arg] = [plan.version, plan.cursor, plan.head, plan.now_ms, saga.id]
    args += [before, plan.state.value if plan.moves else "", plan.created_at]
    args += [""] if plan.outcome is None else [len(plan.outcome), *plan.outcome]
    args.append(len(plan.steps))
    args += [item for pair in plan.steps for item in pair]
    args.append(len(plan.decided))
    args += [item for entry in plan.decided for item in (entry_key(entry), encode(entry))]
    args.append(len(plan.outbox))
    for name, (value, due_ms) in plan.outbox.items():
        args += [name, value, k.due_outbox(saga.id, name), due_ms]
    args.append(len(plan.letters))
    for name, letter in plan.letters.items():
        args += [name if name in plan.outbox else _claim_of(name), *letter]
    args.append(len(plan.withdrawals))
    for name, entry in plan.withdrawals.items():
        args += [name, k.due_outbox(saga.id, name), entry_key(entry), encode(entry)]
    args.append(len(plan.due))
    args += [item for pair in plan.due.items() for item in pair]
    args += [len(plan.cleared), *plan.cleared]
    args.append(len(plan.claims))
    args += [item for pair in plan.claims.items() for item in pair]
    args.append(len(plan.taken))
    for name in plan.taken:
        args += [name, k.due_outbox(saga.id, name)]
    args.append(len(plan.adopted))
    args += [item for pair in plan.adopted.items() for item in pair]
    for which, member, since in plan.waiting:
        args += [which, member, "" if since is None else since]
    return args


def _claim_of(name: str) -> str:
    """The field of the claim that a commit writes instead of a command."""
    ref = parse_outbox_field(name)
    return claim_field(ref.kind, ref.step)
