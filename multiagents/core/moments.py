"""Which time does a user's text mean?  Pure: the present time is a parameter."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from multiagents.core.exceptions import InvalidInput

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_EXPECTED = (
    "expected a time ago (30m, 2h, 7d), today, yesterday, or a date or time such as 2026-11-30 or"
    " 2026-11-30T14:05"
)


def moment_ms(given: str | datetime, now_ms: int, *, name: str) -> int:
    """Unix milliseconds of a time in a user's form.

    ``2h`` is two hours ago.  Days, and times without a zone, are in the zone of this computer.
    Raises InvalidInput, which names the argument by ``name``.
    """
    try:
        return _moment_ms(given, now_ms)
    except (ValueError, TypeError, OverflowError, OSError) as error:
        raise InvalidInput(f"{name} is {given!r}; {_EXPECTED}") from error


def _moment_ms(given: str | datetime, now_ms: int) -> int:
    if isinstance(given, datetime):
        return round(given.timestamp() * 1000)
    text = given.strip().lower()
    ago = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)\s*([smhd])(?: ago)?", text)
    if ago:
        return now_ms - round(float(ago[1]) * _UNITS_S[ago[2]] * 1000)
    if text in ("today", "yesterday"):
        day = datetime.fromtimestamp(now_ms / 1000).date() - timedelta(days=text != "today")
        return round(datetime(day.year, day.month, day.day).timestamp() * 1000)
    return round(datetime.fromisoformat(text.upper()).timestamp() * 1000)
