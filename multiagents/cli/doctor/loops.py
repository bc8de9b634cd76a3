"""Do the event loops of the running workers answer?"""

from __future__ import annotations

from collections.abc import Mapping

from multiagents.cli.doctor.checks import Check
from multiagents.operations.explain.blocked_loops import Report, lately, told_of_worker


def loops(reports: Mapping[str, Report], now_ms: int) -> Check:
    """Event loops answer.  ``reports``: host -> its last report, see `Catalog.report_loop`."""
    recent = lately(reports, now_ms)
    if not recent:
        return Check("event loops", "ok", "no worker's event loop was blocked in the last hour")
    message = "; ".join(told_of_worker(host, each) for host, each in sorted(recent.items()))
    fix = "make the blocking call with asyncio.to_thread, or make its worker a plain function"
    return Check("event loops", "warn", message, fix)
