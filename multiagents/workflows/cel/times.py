"""How are times written and read?

RFC 3339 for timestamps, ``1h30m5.5s`` for durations, names of the IANA database or offsets for
zones.  Nanoseconds are whole numbers, so no value is rounded.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from multiagents.workflows.cel.values import Duration, Timestamp

SECOND = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIMESTAMP = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d{2}:\d{2})",
    re.ASCII,
)
_OFFSET = re.compile(r"([+-]?)(\d{1,2}):(\d{2})", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|ms|s|m|h)", re.ASCII)
_UNITS = {
    "ns": 1,
    "us": 1000,
    "ms": 1_000_000,
    "s": SECOND,
    "m": 60 * SECOND,
    "h": 3600 * SECOND,
}
_DURATION_MAX = 2**63 - 1


def read_timestamp(text: str) -> Timestamp:
    """The point in time of an RFC 3339 text.  Raises ValueError that does not quote the text."""
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        raise ValueError("is not an RFC 3339 time with a zone, as in '2026-01-05T09:00:00Z'")
    day, clock, fraction, zone = match.groups()
    offset = timedelta() if zone in "Zz" else _offset(zone)
    if offset is None:
        raise ValueError("has an offset that no zone has")
    leap = clock.endswith(":60")  # counted as the second after 59, as POSIX does
    clock = f"{clock[:6]}59" if leap else clock
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=timezone(offset))
    except ValueError:
        raise ValueError("is not a valid date and time") from None
    whole = (moment - _EPOCH) // timedelta(seconds=1) + leap
    nanoseconds = int((fraction or "0").ljust(9, "0"))
    return Timestamp(whole * SECOND + nanoseconds, round(offset.total_seconds()))


def write_timestamp(time: Timestamp) -> str:
    """The time in RFC 3339, with its original offset."""
    moment = in_zone(time, timezone(timedelta(seconds=time.offset_s)))
    nanoseconds = time.ns % SECOND
    text = moment.replace(microsecond=0).isoformat()
    head, zone = text[:19], text[19:]
    return f"{head}{_fraction(nanoseconds)}{zone}"


def _fraction(nanoseconds: int) -> str:
    if not nanoseconds:
        return ""
    digits = f"{nanoseconds:09}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f".{digits}"


def in_zone(time: Timestamp, zone: tzinfo) -> datetime:
    """The date and time, to the microsecond.  Raises ValueError outside of years 1 to 9999."""
    try:
        return (_EPOCH + timedelta(microseconds=time.ns // 1000)).astimezone(zone)
    except OverflowError:
        raise ValueError("is outside of the years 1 to 9999") from None


@lru_cache(maxsize=256)
def read_zone(text: str) -> tzinfo:
    """The zone of a name such as ``Europe/Oslo`` or an offset such as ``+01:00``.

    Raises ValueError that does not quote the text.
    """
    offset = _offset(text)
    if offset is not None:
        return timezone(offset)
    try:
        return ZoneInfo(text)
    except (OSError, LookupError, ValueError):
        raise ValueError("is not a time zone, such as 'Europe/Oslo' or '+01:00'") from None


def _offset(text: str) -> timedelta | None:
    match = _OFFSET.fullmatch(text)
    if match is None:
        return None
    sign, hours, minutes = match.groups()
    if int(hours) > 23 or int(minutes) > 59:
        return None
    size = timedelta(hours=int(hours), minutes=int(minutes))
    return -size if sign == "-" else size


def read_duration(text: str) -> Duration:
    """The duration of a text such as ``1h30m`` or ``-1.5s``.

    Raises ValueError that does not quote the text.
    """
    body = text[1:] if text[:1] in {"+", "-"} else text
    if body == "0":
        return Duration(0)
    parts = _PART.findall(body)
    if not parts or "".join(number + unit for number, unit in parts) != body:
        raise ValueError("is not a duration, such as '1h30m', '90s' or '1.5s'")
    total = sum(_nanoseconds(number, _UNITS[unit]) for number, unit in parts)
    return checked(-total if text[:1] == "-" else total)


def _nanoseconds(number: str, unit: int) -> int:
    whole, _, fraction = number.partition(".")
    return int(whole or "0") * unit + int(fraction or "0") * unit // int("1" + "0" * len(fraction))


def checked(nanoseconds: int) -> Duration:
    """A duration of at most 292 years.  Raises ValueError."""
    if abs(nanoseconds) > _DURATION_MAX:
        raise ValueError("is longer than 292 years")
    return Duration(nanoseconds)


def write_duration(duration: Duration) -> str:
    """As Go writes it: ``1h30m0s``, ``1.5s``, ``90ms``."""
    sign, ns = ("-" if duration.ns < 0 else ""), abs(duration.ns)
    if ns < SECOND:
        unit = next((u for u in ("ms", "us", "ns") if ns >= _UNITS[u]), "s")
        return f"{sign}{_decimal(ns, _UNITS[unit])}{'µs' if unit == 'us' else unit}"
    minutes, rest = divmod(ns, 60 * SECOND)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest, SECOND)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{text}"
    return f"{sign}{minutes}m{text}" if minutes else f"{sign}{text}"


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    if not rest:
        return str(whole)
    digits = str(rest).rjust(len(str(unit)) - 1, "0").rstrip("0")
    return f"{whole}.{digits}"
