"""Do steps wait for a worker that does not run?

A saga keeps its own definition, so it may wait for a function that no published workflow names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from multiagents.cli.doctor.checks import Check, count_of
from multiagents.engine.launches import MEND
from multiagents.operations.explain.unclaimed_steps import why_stranded

if TYPE_CHECKING:
    from multiagents.cli.session import Session

LOOKED_AT = 100
"""Of each state, the newest sagas."""
EXPLAINED = 20
"""So many of these at most are explained one by one."""
IN_VAIN = ("no_consumer", "unknown_function", "function_elsewhere")
"""Codes of reasons why workers run and none of them does a step."""

Found = tuple[str, Mapping[str, Any]]
"""A saga, and the reason why a step of it waits, as JSON shows it."""


def waiting(session: Session) -> Check:
    """No step that was sent waits for a function, or a queue, that no running worker has."""
    return judged(list(_in_vain(session)))


def judged(found: Sequence[Found]) -> Check:
    """What is found."""
    if not found:
        return Check("waiting steps", "ok", "none of those looked at waits for another worker")
    saga_id, reason = found[0]
    more = f"; {count_of(len(found) - 1, 'more such step')}" if len(found) > 1 else ""
    message = f"{reason['kind']} {reason['step']!r} of saga {saga_id} waits: {why_stranded(reason)}"
    fix = f"start one: {reason['commands'][0]}" if reason["commands"] else MEND
    return Check("waiting steps", "warn", f"{message}{more}", fix)


def _in_vain(session: Session) -> Iterator[Found]:
    sent = [
        row["transaction_id"]
        for state in ("running", "compensating")
        for row in session.call("list", state=state, limit=LOOKED_AT)
        if any(map(_is_sent, row["steps"].values()))
    ]
    for saga_id in sent[:EXPLAINED]:
        for reason in session.call("explain", saga_id)["reasons"]:
            if reason["code"] in IN_VAIN:
                yield saga_id, reason


def _is_sent(step: Mapping[str, Any]) -> bool:
    return "dispatched" in (step["state"], (step["compensation"] or {}).get("state"))
