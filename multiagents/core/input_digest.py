"""Are two inputs with the same idempotency key equal, and what happens if not?  Pure."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any

REFUSE, FIRST = "refuse", "first"
"""The two ways for a start whose key belongs to a saga with another input: refuse, or join it."""


def digest_of(text: str) -> str:
    """A digest of an input (JSON), to compare inputs; the order of keys does not matter."""
    return blake2b(_canonical(_exact(text)), digest_size=16).hexdigest()


def differing(one: str, other: str) -> list[str]:
    """The keys in which two inputs (JSON) differ."""
    first, second = _exact(one), _exact(other)
    apart = {**first, **second}
    return [
        name
        for name in apart
        if name not in first
        or name not in second
        or _canonical(first[name]) != _canonical(second[name])
    ]


def _exact(text: str) -> Any:
    """JSON with its numbers as they are written: Python refuses numbers of 5,000 digits."""
    return json.loads(text, parse_int=_number, parse_float=_number)


def _number(text: str) -> dict[str, str]:
    return {"": text}  # no input has an empty key


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
