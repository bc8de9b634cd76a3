"""Which inputs and results can be stored?

Strict JSON of bounded size.  A value that JSON does not have is stored in its plain form
(`core.plain_values`), or refused before anything is stored; the error names the key.  Keys are
checked only for their form, not for words in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from multiagents.core.exceptions import InvalidInput, InvalidResult, MultiAgentsError
from multiagents.core.json_text import dumps, loads
from multiagents.core.plain_values import NoPlainValue, plain

MAX_INPUT_DEPTH = 64
"""More levels than any hand-written document; far below every parser's recursion limit."""
MAX_INPUT_KEY = 256
"""Characters in one key of an input."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_SETTING = {
    InvalidInput: "MULTIAGENTS_MAX_INPUT_BYTES",
    InvalidResult: "MULTIAGENTS_MAX_RESULT_BYTES",
}


def to_json(
    value: Any, *, what: str, limit: int, error: type[MultiAgentsError] = InvalidResult
) -> str:
    """The value as strict, compact JSON of at most ``limit`` bytes: the text of `as_json`."""
    return as_json(value, what=what, limit=limit, error=error)[1]


def as_json(
    value: Any,
    *,
    what: str,
    limit: int,
    error: type[MultiAgentsError] = InvalidResult,
    limited_by: str = "",
) -> tuple[Any, str]:
    """The value as a reader will get it, and as strict, compact JSON of at most ``limit`` bytes.

    A value that JSON does not have takes its form of `core.plain_values`.  Raises ``error``, which
    names the key of a value without a form, or the size.  ``what`` begins the message:
    ``result of 'charge'``.  ``limited_by``: the source of the limit, if it is not the setting.
    """
    try:
        text = compact(value)
        # The codec silently writes values that are not JSON; reading them gives another value.
        # Tuples also come back as another value; `_converted` accepts them.
        if loads(text) != value:
            raise ValueError("not what was given")
    except (TypeError, ValueError, RecursionError):
        value, text = _converted(value, what=what, error=error)
    size = len(text) if text.isascii() else len(text.encode())
    if size > limit:
        by = limited_by or _SETTING[error]
        raise error(
            f"{what} is {size:,} bytes of JSON; the limit is {limit:,} ({by}):"
            " keep large data elsewhere and pass a reference to it"
        )
    return value, text


def _converted(value: Any, *, what: str, error: type[MultiAgentsError]) -> tuple[Any, str]:
    try:
        value = plain(value)
        text = compact(value)
        loads(text)
    except NoPlainValue as cause:
        raise error(f"{what}: {cause}") from cause
    except (TypeError, ValueError, RecursionError) as cause:
        raise error(f"{what}: is not JSON: {cause}") from cause
    return value, text


def compact(value: Any) -> str:
    """A checked value as JSON, in the form of `to_json`."""
    return dumps(value)


def check_input(data: Any, limit: int, *, limited_by: str = "") -> str:
    """A saga's input as JSON.

    Raises InvalidInput if it is not a dict of JSON, is too large or too deep, or has a suspicious
    key: empty, too long, with control characters, or a name of Python or JavaScript itself, such as
    ``__class__`` and ``__proto__``.
    """
    if not isinstance(data, dict):
        raise InvalidInput(f"the input is {kind_of(data)}: expected a dict, as in {{'sku': 'A1'}}")
    data, text = as_json(data, what="input", limit=limit, error=InvalidInput, limited_by=limited_by)
    if not _is_sound(data):
        raise InvalidInput(f"input: {_fault(data)}")
    return text


def _walk(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any, int]]:
    """Every inner value with its path and depth, top first, in order."""
    stack = [(path, value, depth)]
    while stack:
        path, value, depth = stack.pop()
        yield path, value, depth
        if isinstance(value, dict):
            inner = [(_join(path, key), item) for key, item in value.items()]
        elif isinstance(value, list | tuple):
            inner = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
        else:
            continue
        stack.extend((place, item, depth + 1) for place, item in reversed(inner))


def _join(path: str, key: Any) -> str:
    if not _PLAIN_KEY.fullmatch(str(key)):
        return f"{path}[{key!r}]"
    return f"{path}.{key}" if path else str(key)


def _is_sound(data: dict[str, Any]) -> bool:
    """Whether `_fault` would find no mistake; every start runs this, so it keeps no paths."""
    level: list[Any] = [data]
    for _ in range(MAX_INPUT_DEPTH + 1):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                if any(map(_key_fault, item)):
                    return False
                item = item.values()
            inner.extend(value for value in item if isinstance(value, dict | list | tuple))
        if not inner:
            return True
        level = inner
    return False


def _fault(data: dict[str, Any]) -> str:
    """A message about the first suspicious key, or about too deep an input."""
    for path, value, _ in _walk(data):
        faults = (_key_fault(key) for key in value) if isinstance(value, dict) else ()
        for fault in filter(None, faults):
            return f"{fault} {f'under {path!r}' if path else 'at the top'}; rename it"
    return f"nested deeper than {MAX_INPUT_DEPTH} levels; flatten it"


def _key_fault(key: str) -> str | None:
    if not key:
        return "an empty key"
    if len(key) > MAX_INPUT_KEY:
        return f"a key of {len(key):,} characters ({key[:20]!r}…; at most {MAX_INPUT_KEY})"
    if key.startswith("__") and key.endswith("__"):
        return f"the reserved name {key!r}"
    if not key.isprintable() and _CONTROL.search(key):
        return f"the key {key!r} with control characters"
    return None


def kind_of(value: Any) -> str:
    """The type of a value, as a word."""
    return "None" if value is None else type(value).__name__
