"""Are two inputs with the same idempotency key the same, and if not, what happens?  Pure."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any

REFUSE, FIRST = "refuse", "first"
"""What becomes of a start whose key belongs to a saga with another input: nothing, or it joins."""


def digest_of(text: str) -> str:
    """By what an input (JSON) is compared: its content, whatever the order of its keys."""
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
    """JSON with its numbers as they are written: Python makes no number of 5,000 digits."""
    return json.loads(text, parse_int=_number, parse_float=_number)


def _number(text: str) -> dict[str, str]:
    return {"": text}  # no input has an empty key


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
