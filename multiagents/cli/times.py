"""How are times printed as text?

They are short, and in the zone of this computer; `--json` has ISO 8601 in UTC.  Pure.
"""

from __future__ import annotations

import re
from datetime import datetime

DAY_S = 86_400


def ms_of(at: str | None) -> int | None:
    """Unix milliseconds of a time in ISO 8601."""
    return None if at is None else round(datetime.fromisoformat(at).timestamp() * 1000)


def seconds(start_ms: int | None, end_ms: int | None) -> str | None:
    """The duration between two times; None without a start or an end."""
    if start_ms is None or end_ms is None:
        return None
    elapsed = max(0.0, (end_ms - start_ms) / 1000)
    if elapsed < 60:
        return f"{elapsed:.1f} s"
    minutes, rest = divmod(int(elapsed), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    return f"{elapsed / DAY_S:.1f} d" if elapsed >= 2 * DAY_S else _hours(minutes)


def _hours(minutes: int) -> str:
    return f"{minutes // 60} h {minutes % 60:02d} min"


def ago(at_ms: int, now_ms: int) -> str:
    """How long ago: ``2 min ago``."""
    from multiagents.operations.explain.saga import span

    passed = now_ms - at_ms
    return f"{span(passed)} ago" if passed >= 1000 else "just now"


def ahead(at_ms: int, now_ms: int) -> str:
    """In how long: ``in 12 s``."""
    from multiagents.operations.explain.saga import span

    return "now" if at_ms <= now_ms else f"in {span(max(1000, at_ms - now_ms))}"


def clock(at_ms: int, now_ms: int) -> str:
    """The time of day, with the date unless it is today's: ``2026-11-29 05:05:38``."""
    at, now = (datetime.fromtimestamp(ms / 1000).astimezone() for ms in (at_ms, now_ms))
    return f"{at:%H:%M:%S}" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M:%S}"


_UTC = re.compile(r"\b(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d) UTC\b")


def in_own_zone(text: str, now_ms: int) -> str:
    """A text of `explain` with its UTC times in this computer's zone, as `clock` prints them."""

    def told(found: re.Match[str]) -> str:
        return clock(ms_of(f"{found[1]}T{found[2]}+00:00") or 0, now_ms)

    return _UTC.sub(told, text)


def moment(at_ms: int, now_ms: int) -> str:
    """Both: ``05:05:38, 2 min ago``."""
    return f"{clock(at_ms, now_ms)}, {ago(at_ms, now_ms)}"


def since_start(at_ms: int, start_ms: int) -> str:
    """The time since the start, for a history: ``0.42 s``."""
    passed = max(0, at_ms - start_ms)
    return f"{passed / 1000:.2f} s" if passed < 60_000 else seconds(start_ms, at_ms) or ""
