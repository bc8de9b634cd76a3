"""Which shape have the stored data, apart from their values?

A line stands for each kind of key, field, row, log entry, due member and message. A comparison of
two stored states uses them: an older engine of a format has to read a newer one's data.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterator
from typing import Any

from tests.upgrade.state.stored import State


def shape_of(state: State) -> set[str]:
    """All lines of a state."""
    names = sorted(state.before, key=len, reverse=True)
    ids = re.compile("|".join(rf"(?<![\\w-]){re.escape(name)}(?![\\w-])" for name in names))
    found: set[str] = set()
    for key, stored in state.keys.items():
        kind = re.sub(r":(workflow|tag|state|queue):.*", r":\1:*", ids.sub("ID", key))
        found.add(f"{kind} {stored['type']}")
        found.update(f"{kind} {line}" for line in _lines(kind, stored))
    return found


def _lines(kind: str, stored: dict[str, Any]) -> Iterator[str]:
    value = stored["value"]
    match stored["type"]:
        case "hash" if "ma:" in kind and not kind.endswith("definitions"):
            for name, text in value.items():
                field, _, _ = name.partition(":")
                yield f"{field} = {_value(field, text)}"
        case "zset" if kind.endswith(("due", "dead-letters")):
            for member, _ in value:
                yield f"{member[0]}, {member.count('|')} bars"
        case "list" if ":log:" in kind:
            for text in value:
                yield from _entries(text)
        case "list":
            for text in value:
                yield from _message(json.loads(text))


def _value(field: str, text: Any) -> str:
    if field in ("h", "s"):
        return f"{len(json.loads(text))} columns"
    if field in ("c", "o", "p") and "|" in str(text):
        return f"{str(text).count('|')} bars"
    return "*"


def _entries(text: Any) -> Iterator[str]:
    if isinstance(text, dict):
        lines = zlib.decompress(base64.b64decode(text["base64"])).decode().split("\n")
    else:
        lines = [text]
    for line in lines:
        row = json.loads(line)
        yield f"{row[0]}, {len(row)} columns"


def _message(message: dict[str, Any]) -> Iterator[str]:
    yield f"message {sorted(message)}"
    yield f"headers {sorted(message['headers'])}"
    yield from (
        f"{name}, {len(value)} columns"
        for name, value in message["headers"].items()
        if isinstance(value, list)
    )
