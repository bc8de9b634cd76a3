"""Do steps wait for a worker that is not running?

A saga keeps its own definition, so it may need a function that no published workflow names.
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
"""How many sagas of each state are read, the newest first."""
EXPLAINED = 20
"""How many of them at most are explained one by one."""
IN_VAIN = ("no_consumer", "unknown_function", "function_elsewhere")
"""Codes of reasons why none of the running workers takes a step."""

Found = tuple[str, Mapping[str, Any]]
"""A saga's id, and the reason why one of its steps waits, as JSON shows it."""


def waiting(session: Session) -> Check:
    """No sent step waits for a function or a queue that no running worker has."""
    return judged(list(_in_vain(session)))


def judged(found: Sequence[Found]) -> Check:
    """The finding about these steps."""
    if not found:
        return Check("waiting steps", "ok", "none that was checked waits for another worker")
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
