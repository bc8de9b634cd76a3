"""What are the fields of a saga's hashes called, and what stands in the index of dead letters?

The keys themselves are named in `storage.keys`.
"""

from __future__ import annotations

from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.states import Kind

END = "end"
"""The outbox entry for delivering a saga's outcome."""


def outbox_field(ref: AttemptRef) -> str:
    """In the work hash: a command that nobody has claimed."""
    return f"o:{ref.text}"


def parse_outbox_field(field: str) -> AttemptRef:
    """The attempt that `outbox_field` was given."""
    return AttemptRef.parse(field.removeprefix("o:"))


OUTBOX_END = f"o:{END}"


def claim_field(kind: Kind, step: str) -> str:
    """In the work hash: who does it now, as ``attempt|nonce|deadline_ms|delivery``."""
    return f"c:{kind}:{step}"


def step_field(step: str) -> str:
    """In the saga's own hash: the row of a step."""
    return f"s:{step}"


def result_field(kind: Kind, step: str) -> str:
    """In the data hash: what the worker or compensation returned."""
    return f"{'r' if kind is Kind.RUN else 'u'}:{step}"


def late_field(nonce: str) -> str:
    """In the data hash: what the attempt of a claim returned after it had been given up.

    Apart from the results, which other steps and conditions read, until a decision adopts it.
    """
    return f"l:{nonce}"


def part_field(task_id: str) -> str:
    """In the data hash: what of a canvas was told, where not all of it could be."""
    return f"part:{task_id}"


def refused_field(step: str) -> str:
    """In the data hash: what the worker returned that its step's condition then refused."""
    return f"f:{step}"


def dead_letter(kind: Kind, step: str, workflow: str, saga_id: str) -> str:
    """In the index of dead letters: all that one filters by, so that no saga is read for it."""
    return f"{kind}|{step}|{workflow}|{saga_id}"


def parse_dead_letter(member: str) -> tuple[Kind, str, str, str]:
    """The parts that `dead_letter` put together; only an id may hold what stands between them."""
    kind, step, workflow, saga_id = member.split("|", 3)
    return Kind(kind), step, workflow, saga_id
