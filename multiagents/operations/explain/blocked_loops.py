"""What do texts say about a blocked event loop?

Their source is the last report of each worker (see `Catalog.report_loop`).  Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from multiagents.operations.explain.saga import span

Report = Mapping[str, Any]

FRESH_MS = 30_000
"""A blocked loop is reported every ten seconds; after this time its process is gone."""
KEPT_MS = 3_600_000
"""`doctor` names a loop that was blocked within the last hour."""


def blocked_now(reports: Mapping[str, Report], now_ms: int) -> Sequence[Report]:
    """The reports of loops that are still blocked."""
    return [
        each for each in reports.values() if each["blocked"] and now_ms - each["at_ms"] < FRESH_MS
    ]


def lately(reports: Mapping[str, Report], now_ms: int) -> dict[str, Report]:
    """The reports of the last hour, by host."""
    return {host: each for host, each in reports.items() if now_ms - each["at_ms"] < KEPT_MS}


def told_of_loop(report: Report, token: str, now_ms: int) -> str:
    """How a blocked loop concerns the attempt with that token."""
    long = span(report["lag_ms"] + max(0, now_ms - report["at_ms"]))
    where = f", at {report['place']}" if report["place"] else ""
    if report["token"] == token:
        return (
            f"It has blocked the event loop of its process for {long}{where}: no other async step"
            " goes on there. A blocking call belongs into asyncio.to_thread or a plain function."
        )
    return (
        f"The event loop of its process has been blocked by {_blocker(report)} for {long}{where}."
        " It goes on when that ends, or elsewhere, without losing an attempt, when the loop is"
        " given up."
    )


def told_of_worker(host: str, report: Report) -> str:
    """The sentence of `doctor` about a loop of this host."""
    verb = "is" if report["blocked"] else "was"
    where = f", at {report['place']}" if report["place"] else ""
    seconds = report["lag_ms"] / 1000
    return f"a loop of {host} {verb} blocked by {_blocker(report)} for {seconds:.1f} s{where}"


def _blocker(report: Report) -> str:
    by = report["by"]
    if not by:
        return "code of no running attempt"
    whose = f" in step {by['step']!r} of saga {by['saga']}" if by.get("saga") else ""
    return f"worker {by['worker']!r}{whose}"
