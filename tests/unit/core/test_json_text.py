"""Does the fast codec agree with Python's own?"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from multiagents.core.json_text import dumps, loads

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",)))
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text('aé\n"\\\x00☃'), inner),
)


@given(_VALUES)
def test_what_is_written_reads_the_same_by_both(value: Any) -> None:
    """Other tools, and versions with another codec, read the same logs."""
    text = dumps(value)
    assert json.loads(text) == loads(text) == value
    assert [type(item) for item in _flat(loads(text))] == [type(item) for item in _flat(value)]


@given(_VALUES)
def test_what_json_writes_is_read(value: Any) -> None:
    """The codec reads states written by `json`, with spaces and escapes."""
    assert loads(json.dumps(value)) == loads(json.dumps(value).encode()) == value


def test_no_line_break_is_written() -> None:
    """Line breaks separate a log's entries, so no entry contains one."""
    assert "\n" not in dumps(["a\nb\r", {"c\n": 1}])


def _flat(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [value, *(found for item in value for found in _flat(item))]
    if isinstance(value, dict):
        return [value, *(found for item in value.values() for found in _flat(item))]
    return [value]
