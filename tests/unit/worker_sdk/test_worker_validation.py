"""Are unstorable values refused, and secrets hidden?"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils import json as kombu_json
from pydantic import BaseModel

from multiagents.core.exceptions import InvalidInput, InvalidResult
from multiagents.worker_sdk.validation import (
    as_json,
    check_input,
    check_result,
    redact,
    to_json,
)

LIMIT = 1_000_000

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)
strangers = (
    st.sampled_from([float("nan"), float("inf"), -float("inf"), "\ud800"])
    | st.binary(max_size=3)
    | st.decimals()
    | st.uuids()
    | st.datetimes()
    | st.datetimes(timezones=st.just(UTC))
    | st.dates()
    | st.times()
    | st.sets(st.integers(), max_size=2)
    | st.dictionaries(
        st.integers() | st.booleans() | st.none() | st.text() | st.floats(),
        st.none(),
        max_size=3,
    )
    | st.just(object())
)
mixed_values = st.recursive(
    scalars | strangers,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), json_values))
def test_every_json_dict_is_accepted_and_comes_back_the_same(data: dict[str, Any]) -> None:
    """UTF-8 can encode the stored text."""
    text = to_json(data, what="it", limit=LIMIT)
    assert json.loads(text.encode()) == data


@given(st.dictionaries(st.text(), mixed_values))
def test_what_kombu_takes_is_taken_and_can_be_read_back(data: dict[str, Any]) -> None:
    """A saga takes a Celery task's values, unless their form would lose something."""
    try:
        value, text = as_json(data, what="it", limit=LIMIT)
    except InvalidResult:
        assert _would_lose(data) or not _taken_by_kombu(data)
    else:
        assert _taken_by_kombu(data)
        assert not _would_lose(data)
        assert json.loads(text) == value
        assert _read_as(data, value) == data


@given(st.dictionaries(st.text(), mixed_values))
def test_a_plain_form_is_stored_as_it_is(data: dict[str, Any]) -> None:
    """A value that came out of the store goes back unchanged."""
    try:
        value, text = as_json(data, what="it", limit=LIMIT)
    except InvalidResult:
        return
    assert as_json(value, what="it", limit=LIMIT) == (value, text)


class Colour(StrEnum):
    RED = "red"


class Weight(IntEnum):
    HEAVY = 2


class Later:
    """A framework's object that tells kombu its form."""

    def __json__(self) -> list[UUID]:
        return [UUID(int=2)]


@dataclass
class Money:
    cents: int


@pytest.fixture(autouse=True, scope="module")
def money_is_known() -> Iterator[None]:
    """Register a type of an application with kombu."""
    kombu_json.register_type(
        Money, "money", lambda money: {"cents": money.cents}, lambda row: Money(**row)
    )
    yield
    kombu_json._encoders.pop(Money)


class Pair(NamedTuple):
    one: int
    two: int


@dataclass
class Item:
    price: int


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": (1, (2,))}, '{"a":[1,[2]]}'),
        ({"a": Pair(1, 2)}, '{"a":[1,2]}'),
        ({"a": Colour.RED}, '{"a":"red"}'),
        ({"ä": "é"}, '{"ä":"é"}'),
        ({"1": 1}, '{"1":1}'),
        ({"a": UUID(int=1)}, '{"a":"00000000-0000-0000-0000-000000000001"}'),
        ({"a": Decimal("1.50")}, '{"a":"1.50"}'),
        ({"a": date(2025, 1, 31)}, '{"a":"2025-01-31"}'),
        ({"a": datetime(2025, 1, 31, 9, tzinfo=UTC)}, '{"a":"2025-01-31T09:00:00+00:00"}'),
        (
            {"a": datetime(2025, 1, 31, 9, tzinfo=ZoneInfo("Europe/Oslo"))},
            '{"a":"2025-01-31T09:00:00+01:00"}',
        ),
        ({"a": time(9, 30)}, '{"a":"09:30:00"}'),
        ({"a": b"hello"}, '{"a":"aGVsbG8="}'),
        ({"a": Later()}, '{"a":["00000000-0000-0000-0000-000000000002"]}'),
        ({"a": Money(5)}, '{"a":{"cents":5}}'),
        ({"a": (Weight.HEAVY, 10**30 + 1)}, '{"a":[2,1000000000000000000000000000001]}'),
        ({2: 1, True: 3, None: 4, 1.5: 5}, '{"2":1,"true":3,"null":4,"1.5":5}'),
    ],
)
def test_a_value_has_the_form_that_people_and_programs_expect(value: Any, text: str) -> None:
    """The forms are those of the table in docs/how-to/workers.md."""
    assert to_json(value, what="it", limit=LIMIT) == text


class Endless:
    def __json__(self) -> Endless:
        return self


CIRCLE: dict[str, Any] = {}
CIRCLE["self"] = [CIRCLE]


@pytest.mark.parametrize(
    ("value", "flaw"),
    [
        (
            {"order": {"items": [0, 1, {"price": {1}}]}},
            "key 'order.items[2].price' is a set; JSON wants str, int, float, bool, None, list"
            " or dict: convert it",
        ),
        ({"at": datetime(2025, 1, 31)}, "key 'at' is a datetime without a time zone: give it one"),
        ({"a b": {"c.d": bytearray()}}, "key \"['a b']['c.d']\" is a bytearray"),
        ({"a": Decimal("nan")}, "key 'a' is Decimal('NaN'): use None or leave it out"),
        ({"a": Endless()}, "contains itself"),
        ({"a": [1.0, float("nan")]}, "key 'a[1]' is nan; JSON has no NaN"),
        ({"a": Item(1)}, "key 'a' is an Item"),
        ({"totals": {1: 2, "1": 3}}, "key 'totals' has two keys that become the text '1'"),
        ({float("nan"): 1}, "it has the key nan (float); JSON wants str keys"),
        ({(1, 2): 1}, "has the key (1, 2) (tuple)"),
        ({"a": "\ud800"}, "key 'a' has half of a surrogate pair"),
        ({"\ud800": 1}, "with half of a surrogate pair"),
        (CIRCLE, "contains itself"),
        ({1}, "it is a set"),
        ({"n": 10**5000}, "is not JSON: number out of range"),
    ],
)
def test_a_value_that_is_no_json_is_refused_by_its_key(value: Any, flaw: str) -> None:
    """The error names key and value, and says what to do."""
    with pytest.raises(InvalidResult) as caught:
        to_json(value, what="result of 'charge'", limit=LIMIT)
    assert str(caught.value).startswith("result of 'charge': ")
    assert flaw in str(caught.value)


def test_the_size_limit_counts_bytes_and_names_its_setting() -> None:
    """é counts as two bytes."""
    value = {"a": "é" * 10}
    assert to_json(value, what="it", limit=28)
    with pytest.raises(
        InvalidResult, match=r"it is 28 bytes of JSON; the limit is 27 \(MULTIAGENTS_MAX_RESULT_BYT"
    ):
        to_json(value, what="it", limit=27)
    with pytest.raises(InvalidInput, match=r"input is 1,008 bytes.*MULTIAGENTS_MAX_INPUT_BYTES"):
        check_input({"a": "x" * 1000}, 1000)


@pytest.mark.parametrize(
    ("data", "flaw"),
    [
        (["sku"], "the input is list: expected a dict"),
        (None, "the input is None"),
        ({(): 2}, "has the key ()"),
        ({"order": [{b"a": 1}]}, "key 'order[0]' has the key b'a' (bytes)"),
        ({"": 1}, "an empty key at the top"),
        ({"order": [{"": 1}]}, "an empty key under 'order[0]'"),
        ({"k" * 257: 1}, "a key of 257 characters"),
        ({"a\x00b": 1}, "control characters"),
        ({"a\nb": 1}, "control characters"),
        ({"order": {"__class__": 1}}, "the reserved name '__class__' under 'order'"),
        ({"__proto__": {}}, "rename it"),
    ],
)
def test_a_hostile_key_is_refused_at_any_depth(data: Any, flaw: str) -> None:
    """The key's form decides, and the error has its place."""
    with pytest.raises(InvalidInput) as caught:
        check_input(data, LIMIT)
    assert flaw in str(caught.value)


@pytest.mark.parametrize(
    "key", ["executive", "import_duty", "evaluation", "_private", "a b", "日本"]
)
def test_a_word_is_no_danger(key: str) -> None:
    """No word makes a value refused or dropped."""
    assert json.loads(check_input({key: "eval exec"}, LIMIT)) == {key: "eval exec"}


def test_an_input_may_be_64_levels_deep_and_no_deeper() -> None:
    """The input itself is level 0."""
    assert check_input(_nested(64), LIMIT)
    with pytest.raises(InvalidInput, match="nested deeper than 64 levels"):
        check_input(_nested(65), LIMIT)
    with pytest.raises(InvalidInput, match="input: "):
        check_input(_nested(100_000), LIMIT)


class Receipt(BaseModel):
    paid: Decimal


def test_a_result_is_a_dict_a_model_or_nothing() -> None:
    """None means {}; the error for anything else asks for a dict."""
    assert check_result(None, "charge", LIMIT) == ({}, "{}")
    model = Receipt(paid=Decimal("1.50"))
    assert check_result(model, "charge", LIMIT) == ({"paid": "1.50"}, '{"paid":"1.50"}')
    assert check_result({"a": 1}, "charge", LIMIT) == ({"a": 1}, '{"a":1}')
    with pytest.raises(InvalidResult, match="worker 'charge' returned list: return a dict"):
        check_result([1], "charge", LIMIT)
    with pytest.raises(InvalidResult, match="result of 'charge': key 'a' is an object"):
        check_result({"a": object()}, "charge", LIMIT)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://user:p@ss/word@host:6379/0 refused", "redis://user:***@host:6379/0 refused"),
        ("redis://:hunter2@host", "redis://:***@host"),
        ("https://ghp_abc@github.example/x", "https://***@github.example/x"),
        ("GET /v1?api_key=hunter2&q=1", "GET /v1?api_key=***&q=1"),
        ('{"apiKey": "hunter2"}', '{"apiKey": ***}'),
        ("OPENAI_API_KEY=hunter2", "OPENAI_API_KEY=***"),
        ("aws_secret_access_key = hunter2", "aws_secret_access_key = ***"),
        ("password='a b' x", "password=*** x"),
        ("Authorization: Bearer hunter2.x-y", "Authorization: ***"),
        ("{'Authorization': 'Basic aHVudGVyMg=='}", "{'Authorization': '***'}"),
        ("sent bearer hunter2hunter2", "sent bearer ***"),
        ("Incorrect API key provided: sk-proj-abcdefgh1234.", "Incorrect API key provided: ***."),
        ("?token=hunter2", "?token=***"),
        ("AIza" + "x" * 35, "***"),
    ],
)
def test_secrets_are_hidden(text: str, shown: str) -> None:
    """The text around a secret stays readable."""
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "unexpected token: }",
        "task-something-long failed",
        "http://host:80/path not found",
        "mail to a@b.example",
        "the secretary",
    ],
)
def test_plain_words_stay(text: str) -> None:
    """Harmless text stays readable."""
    assert redact(text) == text


def _nested(levels: int) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for _ in range(levels):
        data = {"a": data}
    return data


def _taken_by_kombu(value: Any) -> bool:
    try:
        json.dumps(value, cls=kombu_json.JSONEncoder, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def _would_lose(value: Any) -> bool:
    """Whether the stored form of a part would lose something."""
    if isinstance(value, dict):
        keys = [json.loads(json.dumps({key: 0})).popitem()[0] for key in value]
        if len(set(keys)) < len(keys):
            return True
        return any(map(_would_lose, [*keys, *value.values()]))
    if isinstance(value, list):
        return any(map(_would_lose, value))
    if isinstance(value, Decimal):
        return not value.is_finite()
    if isinstance(value, str):
        return "\ud800" in value
    return isinstance(value, datetime) and value.tzinfo is None


_BACK: dict[type, Callable[[Any], Any]] = {
    bytes: b64decode,
    UUID: UUID,
    Decimal: Decimal,
    datetime: datetime.fromisoformat,
    date: date.fromisoformat,
    time: time.fromisoformat,
}


def _read_as(value: Any, stored: Any) -> Any:
    """The stored value, read with the types of the given one."""
    if isinstance(value, dict):
        pairs = zip(value.items(), stored.items(), strict=True)
        return {key: _read_as(item, back) for (key, item), (_, back) in pairs}
    if isinstance(value, list):
        return [_read_as(item, back) for item, back in zip(value, stored, strict=True)]
    return _BACK.get(type(value), lambda same: same)(stored)
