"""What may be wrong with keys: queues that take no message, results, damaged sagas, stuck items?

Like `checks`: from what `doctor` has read to one `Check` each.  No I/O here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from multiagents.cli.doctor.checks import NAMES_SHOWN, Check
from multiagents.cli.doctor.workers import Known, needed_queues
from multiagents.core.texts import some_of
from multiagents.storage.failures import Failing
from multiagents.transport.direct_publish import list_of

STUCK_AFTER = 3
"""So often has a due item failed when it is told of: others may pass."""
STUCK_MS = 180_000
"""An item that fails is tried once a minute at least; later it has been dealt with."""
_RIGHTS = "docs/how-to/operations.md#rights-of-a-redis-user"


def lists_of(known: Known) -> dict[str, str]:
    """The broker's list -> its queue, for all queues to which steps are sent."""
    priorities = {step.priority or 0 for workflow in known.workflows for step in workflow.steps}
    return {
        list_of(queue, priority): queue
        for queue in needed_queues(known)
        for priority in sorted({0, *priorities})
    }


def rights(problems: Mapping[str, str], *, looked_at: int) -> Check:
    """Every queue's list and the results can be written.  ``problems``: why not, by name."""
    name = "rights"
    if not problems:
        return Check(name, "ok", f"{looked_at} keys of queues and results can be written")
    shown = _some(f"{key}: {why}" for key, why in problems.items())
    fix = f"move what is not the broker's, or grant the rights ({_RIGHTS}); sagas then go on"
    return Check(name, "fail", f"cannot be written: {shown}", fix)


def damaged(found: Mapping[str, str]) -> Check:
    """Every saga that is listed is whole.  ``found``: what is damaged, by id."""
    name = "damaged sagas"
    if not found:
        return Check(name, "ok", "none of those looked at")
    shown = _some(f"{saga_id} ({why})" for saga_id, why in found.items())
    fix = "find out what their steps have done, then: multiagents remove ID"
    return Check(name, "fail", f"{shown}; nothing moves them", fix)


def stuck(found: Mapping[str, Failing], now_ms: int) -> Check:
    """What is due can be handled.  ``found``: how often not, when last and why, by due member."""
    name = "stuck items"
    bad = {
        member: why
        for member, (failures, at_ms, why) in found.items()
        if failures >= STUCK_AFTER and now_ms - at_ms < STUCK_MS
    }
    if not bad:
        return Check(name, "ok", "none")
    shown = _some(f"{member} ({why})" for member, why in bad.items())
    fix = "put right what is named; each is tried again within a minute, and holds up no other"
    return Check(name, "warn", f"{len(bad)} cannot be handled: {shown}", fix)


def refused(part: str, error: Exception) -> Check:
    """A part of the examination, which the server has refused."""
    fix = f"look at that key; the rights that are needed: {_RIGHTS}"
    return Check(part, "fail", f"the server refused to tell: {error}", fix)


def _some(texts: Iterable[str]) -> str:
    return some_of(texts, NAMES_SHOWN, by="; ")
