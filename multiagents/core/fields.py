"""What are the names of the fields in a saga's hashes, and of the members of the dead-letter index?

`storage.keys` names the keys themselves.
"""

from __future__ import annotations

from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.states import Kind

END = "end"
"""The outbox entry for delivering a saga's outcome."""


def outbox_field(ref: AttemptRef) -> str:
    """In the work hash: a command that no worker has claimed."""
    return f"o:{ref.text}"


def parse_outbox_field(field: str) -> AttemptRef:
    """The attempt that `outbox_field` was given."""
    return AttemptRef.parse(field.removeprefix("o:"))


OUTBOX_END = f"o:{END}"


def claim_field(kind: Kind, step: str) -> str:
    """In the work hash: the present claim, as ``attempt|nonce|deadline_ms|delivery``."""
    return f"c:{kind}:{step}"


def step_field(step: str) -> str:
    """In the saga's own hash: the row of a step."""
    return f"s:{step}"


def result_field(kind: Kind, step: str) -> str:
    """In the data hash: the result of the worker or compensation."""
    return f"{'r' if kind is Kind.RUN else 'u'}:{step}"


def late_field(nonce: str) -> str:
    """In the data hash: the late result of a claim's attempt, which had been given up.

    It is separate from the results, which other steps and conditions read, until a decision adopts
    it.
    """
    return f"l:{nonce}"


def part_field(task_id: str) -> str:
    """In the data hash: the delivered parts of a canvas, if not all could be delivered."""
    return f"part:{task_id}"


def refused_field(step: str) -> str:
    """In the data hash: a worker's result that its step's condition refused."""
    return f"f:{step}"


def dead_letter(kind: Kind, step: str, workflow: str, saga_id: str) -> str:
    """A member of the dead-letter index: all filter fields, so that a filter reads no saga."""
    return f"{kind}|{step}|{workflow}|{saga_id}"


def parse_dead_letter(member: str) -> tuple[Kind, str, str, str]:
    """The parts that `dead_letter` put together; only the id may have their separator."""
    kind, step, workflow, saga_id = member.split("|", 3)
    return Kind(kind), step, workflow, saga_id
