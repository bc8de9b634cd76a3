"""Which problems do keys have: unwritable queues and results, damaged sagas, stuck items?

Like `checks`: each function makes one `Check` of data that `doctor` has read.  No I/O here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from multiagents.cli.doctor.checks import NAMES_SHOWN, Check
from multiagents.cli.doctor.workers import Known, needed_queues
from multiagents.core.texts import some_of
from multiagents.storage.failures import Failing
from multiagents.transport.direct_publish import list_of

STUCK_AFTER = 3
"""A due item is reported after this many failures: fewer may be transient."""
STUCK_MS = 180_000
"""A failing item is tried at least once a minute; an older failure has been solved."""
_RIGHTS = "docs/how-to/operations.md#rights-of-a-redis-user"


def lists_of(known: Known) -> dict[str, str]:
    """The broker's list -> its queue, for all queues that steps are sent to."""
    priorities = {step.priority or 0 for workflow in known.workflows for step in workflow.steps}
    return {
        list_of(queue, priority): queue
        for queue in needed_queues(known)
        for priority in sorted({0, *priorities})
    }


def rights(problems: Mapping[str, str], *, looked_at: int) -> Check:
    """Every queue's list and the results can be written.  ``problems``: name -> why not."""
    name = "rights"
    if not problems:
        return Check(name, "ok", f"{looked_at} keys of queues and results can be written")
    shown = _some(f"{key}: {why}" for key, why in problems.items())
    fix = f"move keys of other programs, or grant the rights ({_RIGHTS}); sagas then continue"
    return Check(name, "fail", f"cannot be written: {shown}", fix)


def damaged(found: Mapping[str, str]) -> Check:
    """Every listed saga is whole.  ``found``: saga id -> the damage."""
    name = "damaged sagas"
    if not found:
        return Check(name, "ok", "none among the sagas that were checked")
    shown = _some(f"{saga_id} ({why})" for saga_id, why in found.items())
    fix = "find out what their steps did, then run: multiagents remove ID"
    return Check(name, "fail", f"{shown}; they do not move", fix)


def stuck(found: Mapping[str, Failing], now_ms: int) -> Check:
    """Due items can be handled.  ``found``: due member -> its failures, the last one, and why."""
    name = "stuck items"
    bad = {
        member: why
        for member, (failures, at_ms, why) in found.items()
        if failures >= STUCK_AFTER and now_ms - at_ms < STUCK_MS
    }
    if not bad:
        return Check(name, "ok", "none")
    shown = _some(f"{member} ({why})" for member, why in bad.items())
    fix = "fix the named cause; each item is retried within a minute, and delays no other item"
    return Check(name, "warn", f"{len(bad)} cannot be handled: {shown}", fix)


def refused(part: str, error: Exception) -> Check:
    """The server refused a read that this part of `doctor` needs."""
    fix = f"check that key; for the rights that it needs, see {_RIGHTS}"
    return Check(part, "fail", f"the server refused a read: {error}", fix)


def _some(texts: Iterable[str]) -> str:
    return some_of(texts, NAMES_SHOWN, by="; ")
