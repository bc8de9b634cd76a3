"""Does CEL follow its specification here, also where libraries do not?"""

from __future__ import annotations

import json
import warnings
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import cel
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from multiagents.workflows.cel.checks import DYN, MOST_LOOPS, TypeMistake, check
from multiagents.workflows.cel.evaluation import build
from multiagents.workflows.cel.functions import FUNCTIONS, METHODS, TYPES, overloads
from multiagents.workflows.cel.patterns import complexity
from multiagents.workflows.cel.refusals import NoValue
from multiagents.workflows.cel.scope import MOST_OPERATIONS, Scope
from multiagents.workflows.cel.syntax import MOST_DEPTH, parse
from multiagents.workflows.cel.tokens import MOST_CHARACTERS, MOST_LEVELS, CelSyntaxError
from multiagents.workflows.cel.values import CelType, Duration, Timestamp, from_key, kind_of

SECOND = 1_000_000_000
DATA: dict[str, Any] = {
    "a": 1,
    "f": 2.5,
    "l": [1, 2, 2.0],
    "n": None,
    "s": "abc",
    "m": {"k": 1, "a": [True]},
    "t": True,
}


def value_of(text: str, data: Any = DATA) -> Any:
    """The value of an expression over ``x``; raises Refusal or CelSyntaxError."""
    return build(parse(text))(Scope({"x": data}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x.zz && false", False),
        ("false && x.zz", False),
        ("x.zz || true", True),
        ("[0, 1].all(i, 1 / i > 5)", False),
        ("[0, 1].exists(i, 1 / i > 0)", True),
        ("[1, 1].exists_one(i, i > 0)", False),
        ("x.l.existsOne(i, i == 1)", True),
        ("x.l.map(i, i > 1, i * 1)", TypeError),
        ("[1, 2].map(i, i > 1, i * 10)", [20]),
        ("x.m.filter(k, k == 'k')", ["k"]),
        ("{true: 1, 1: 2}[true] + {true: 1, 1: 2}[1]", 3),
        ("{true: 1}.exists(k, k == true)", True),
        ("{1: 2}[1.0] + {1: 2}[1u]", 4),
        ("-7 / 2 == -3 && -7 % 2 == -1 && 7 % -2 == 1", True),
        ("1 == 1.0 && 1u == 1 && true != 1 && '1' != 1", True),
        ("[1, [2.0]] == [1.0, [2]] && {'a': 1} == {'a': 1.0}", True),
        ("[true] == [1]", False),
        ("0.0 / 0.0 == 0.0 / 0.0", False),
        ("false < true && b'a' < b'b' && 'a' < 'b'", True),
        ("1u + 2u", 3),
        ("-9223372036854775808 < 0x7F && 0xFFu == 255u", True),
        ("'a' + \"b\" + '''c'd''' + r'\\n' + '\\u0041\\x41\\101'", "abc'd\\nAAA"),
        ("b'\\xff' + b'é'", b"\xff\xc3\xa9"),
        ("true ? 1 : x.zz", 1),
        ("type(1) == int && type(x.n) == null_type && type(int) == type(1u)", False),
        ("size('Привет') == 6 && '😀é'.size() == 2 && size(b'é') == 2", True),
        ("x.m.k + size(x.l) + x.m.size()", 6),
        ("'k' in x.m && !('z' in x.m) && 2 in x.l && !(1 in x.m)", True),
        ("'abc'.matches('b.$') && !'abc'.matches('^b')", True),
        ("'abc'.startsWith('a') && 'abc'.endsWith('c') && 'abc'.contains('b')", True),
        ("string(1.0) + string(1e21) + string(1e-7)", "110000000000000000000000.0000001"),
        ("string(true) + string(1u) + string(b'a')", "true1a"),
        ("int('+5') + int(-5.9) + int(7u)", 7),
        ("double('.5') + double(1) + double('1e3')", 1001.5),
        ("// a comment\n1 // and one more", 1),
        ("[1, 2,][0] + {'a': 1,}.a", 2),
    ],
)
def test_an_expression_has_the_value_that_its_specification_says(text: str, expected: Any) -> None:
    """The values follow https://github.com/google/cel-spec."""
    if expected is TypeError:
        with pytest.raises(NoValue):
            value_of(text)
        return
    assert value_of(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("timestamp('2026-01-05T09:00:00Z').getHours('Europe/Oslo')", 10),
        ("timestamp('2026-07-05T09:00:00Z').getHours('Europe/Oslo')", 11),
        ("timestamp('2026-01-05T09:00:00Z').getHours('-09:30')", 23),
        ("timestamp('2026-01-05T09:00:00Z').getDate('-09:30')", 4),
        ("timestamp('2026-01-05T09:00:00+02:00').getHours()", 7),
        ("timestamp('2026-01-05T09:00:00Z').getMonth()", 0),
        ("timestamp('2026-01-05T09:00:00Z').getDayOfMonth()", 4),
        ("timestamp('2026-01-05T09:00:00Z').getDayOfWeek()", 1),
        ("timestamp('2026-01-05T09:00:00Z').getDayOfYear()", 4),
        ("timestamp('2026-01-05T09:00:00.789Z').getMilliseconds('Asia/Tokyo')", 789),
        ("timestamp('2016-12-31T23:59:60Z') == timestamp('2017-01-01T00:00:00Z')", True),
        ("timestamp('2026-01-05T09:00:00Z') < timestamp('2026-01-05T09:00:00.000000001Z')", True),
        ("timestamp('2026-01-05T09:00:00Z') == timestamp('2026-01-05T11:00:00+02:00')", True),
        ("duration('90m').getHours() + duration('90m').getMinutes()", 91),
        ("duration('-90m').getHours()", -1),
        ("(duration('1h') + timestamp('2026-01-05T09:00:00Z')).getHours()", 10),
        ("string(duration('-1h30m')) + string(duration('90ms'))", "-1h30m0s90ms"),
        ("string(timestamp('2026-01-05T09:00:00.5+02:00'))", "2026-01-05T09:00:00.500+02:00"),
    ],
)
def test_a_time_is_told_in_its_zone(text: str, expected: Any) -> None:
    """The default is UTC; named zones follow daylight saving; nanoseconds stay."""
    assert value_of(text) == expected


@pytest.mark.parametrize(
    ("pattern", "least", "most"),
    [
        ("^a.*c$", 5, 10),
        (r"[0-9]{4}-[0-9]{2}-[0-9]{2}", 60, 100),
        (r"\w{500}", 4_000, 5_000),
        (r"((a{10}){10}){10,20}", 2_000, 3_000),
        (r"(a{2}", 1, 10),
        ("a{99999999999999999}", 10**9, 10**12),
        (r"[]{5}]\]{3}", 5, 30),
        ("", 1, 1),
    ],
)
def test_the_cost_of_a_pattern_is_told_from_its_text(pattern: str, least: int, most: int) -> None:
    """Each repetition counts as often as the compiler expands it."""
    assert least <= complexity(pattern) <= most


@given(st.text(max_size=60), st.text(max_size=20))
def test_any_pattern_finds_something_or_is_none(text: str, pattern: str) -> None:
    """Patterns may come from data, so any text matches or is refused."""
    with suppress(NoValue):
        assert value_of("x.text.matches(x.pattern)", {"text": text, "pattern": pattern}) in {
            True,
            False,
        }


BIG = st.integers(-(10**30), 10**30) | st.integers(2**63 - 3, 2**64 + 3)


@given(BIG, BIG | st.floats(allow_nan=False))
def test_numbers_of_any_size_are_compared_exactly(one: int, other: float) -> None:
    """Comparisons with integers and fractions never round."""
    data = {"one": one, "other": other, "list": [other]}
    assert value_of("x.one < x.other", data) is (one < other)
    assert value_of("x.one >= x.other", data) is (one >= other)
    assert value_of("x.one == x.other", data) is (one == other)
    assert value_of("x.one in x.list", data) is (one == other)
    assert value_of("[x.one][0]", data) == one
    assert value_of("string(x.one)", data) == str(one)


@given(st.sampled_from("+-*/%"), BIG, BIG)
def test_arithmetic_is_exact_or_an_error(sign: str, one: int, other: int) -> None:
    """A result beyond 64 bits is an error."""
    assume(other or sign not in "/%")
    exact = _exact(sign, one, other)
    data = {"one": one, "other": other}
    if -(2**63) <= exact < 2**63:
        assert value_of(f"x.one {sign} x.other", data) == exact
    else:
        with pytest.raises(NoValue, match="does not fit in 64 bits"):
            value_of(f"x.one {sign} x.other", data)


def _exact(sign: str, one: int, other: int) -> int:
    match sign:
        case "+":
            return one + other
        case "-":
            return one - other
        case "*":
            return one * other
    whole = abs(one) // abs(other) * (1 if (one < 0) == (other < 0) else -1)
    return whole if sign == "/" else one - other * whole


_LEAVES = st.sampled_from(
    [
        *("0", "1", "-7", "2u", "1.5", "0.0", "true", "false", "null", "'a'", "'1'", "''", "b'a'"),
        *("x", "x.a", "x.f", "x.l", "x.n", "x.s", "x.m", "x.t", "x.zz", "x.m.k", "[]", "{}"),
        *("timestamp('2020-01-01T00:00:00Z')", "duration('90m')", "9223372036854775807"),
    ]
)
_SHAPES = [
    *("({} + {})", "({} - {})", "({} * {})", "({} / {})", "({} % {})", "(-({}))", "(!{})"),
    *("({} == {})", "({} != {})", "({} < {})", "({} <= {})", "({} > {})", "({} >= {})"),
    *("({} in {})", "({} && {})", "({} || {})", "({} ? {} : {})", "({}).a", "({})[{}]"),
    *("[{}, {}]", "{{'a': {}}}", "{{{}: 1}}", "({}).all(i, {})", "({}).exists(i, {})"),
    *("({}).map(i, {})", "({}).filter(i, i == {})", "({}).exists_one(i, i == {})"),
    *("size({})", "int({})", "uint({})", "double({})", "string({})", "bytes({})", "type({})"),
    *("({}).contains({})", "({}).startsWith({})", "({}).matches('a')", "has(x.m.k) && {}"),
    *("({}).getHours()", "({}).getFullYear()", "timestamp({})", "duration({})", "dyn({})"),
]


def _filled(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.sampled_from(_SHAPES).flatmap(
        lambda shape: st.lists(inner, min_size=3, max_size=3).map(lambda x: shape.format(*x))
    )


_EXPRESSIONS = st.recursive(_LEAVES, _filled, max_leaves=8)
_NONE = object()


def _library(text: str) -> Any:
    """The result of a library written in another language."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return cel.compile(text).execute({"x": DATA})
        except (ValueError, LookupError, TypeError, ArithmeticError, RuntimeError):
            return _NONE


def _as_python(value: Any) -> Any:
    match value:
        case Timestamp():
            return datetime.fromisoformat("1970-01-01T00:00:00+00:00") + timedelta(
                microseconds=value.ns // 1000
            )
        case Duration():
            return timedelta(microseconds=value.ns // 1000)
        case CelType():
            return value.name
        case list():
            return [_as_python(item) for item in value]
        case dict():
            return {from_key(key): _as_python(item) for key, item in value.items()}
    return value


@given(_EXPRESSIONS)
def test_where_another_implementation_has_a_value_it_is_the_same(text: str) -> None:
    """Two independent implementations agree, except for the library's known faults."""
    theirs = _library(text)
    assume(theirs is not _NONE and "true: 1" not in text)
    ours = _ours(text)
    if not isinstance(ours, NoValue):
        assert repr(ours) == repr(theirs) or ours == theirs
    else:
        assert any(each in ours.reason for each in _KNOWN), (theirs, ours.reason)


_KNOWN = ("does not fit in 64 bits", "is not a finite number", "it is negated", "+ does not take")
"""The library wraps or saturates there, takes true for a number, or adds a map to a list."""


def _ours(text: str) -> Any:
    try:
        return _as_python(value_of(text))
    except NoValue as refusal:
        return refusal


@given(_EXPRESSIONS)
def test_the_kind_that_is_foretold_is_the_kind_that_comes(text: str) -> None:
    """An expression refused at build time has no value, unless another operand decides."""
    node = parse(text)
    try:
        foretold = check(node)
    except TypeMistake:
        if not {"&&", "||", "?", "all", "exists"} & {*text, *text.split()} and "." not in text:
            with pytest.raises(NoValue):
                build(node)(Scope({"x": DATA}))
        return
    try:
        value = value_of(text)
    except NoValue:
        return
    assert foretold in {DYN, kind_of(value)}


_OF_KIND = {
    "string": "'1'",
    "bytes": "b'a'",
    "bool": "true",
    "int": "1",
    "uint": "1u",
    "double": "1.5",
    "list": "[]",
    "map": "{}",
    "timestamp": "timestamp('2020-01-01T00:00:00Z')",
    "duration": "duration('1h')",
    "null": "null",
    "any": "1",
}
_SAMPLES = {
    ("timestamp", "string"): "'2020-01-01T00:00:00Z'",
    ("duration", "string"): "'1h'",
}


@pytest.mark.parametrize("name", [*FUNCTIONS, *(f".{name}" for name in METHODS)])
def test_each_function_takes_what_its_table_says_and_nothing_else(name: str) -> None:
    """One table is printed, checked at build time and executed."""
    method, name = name.startswith("."), name.lstrip(".")
    for overload in overloads(name, method=method):
        given_kinds = [
            _SAMPLES.get((name, kind))
            or ("'+01:00'" if place and "get" in name else _OF_KIND[kind])
            for place, kind in enumerate(overload.takes)
        ]
        node = parse(_called(name, given_kinds, method=method))
        assert check(node) == overload.gives
        assert overload.gives in {DYN, kind_of(build(node)(Scope({})))}
    for kind, text in _OF_KIND.items():
        fits = any(each.takes[0] in {kind, "any"} for each in overloads(name, method=method))
        if not fits and kind != "any":
            arguments = [text, "'a'"][: len(overloads(name, method=method)[0].takes)]
            with pytest.raises(TypeMistake):
                check(parse(_called(name, arguments, method=method)))
            with pytest.raises(NoValue, match=name):
                build(parse(_called(name, arguments, method=method)))(Scope({}))


def _called(name: str, arguments: list[str], *, method: bool) -> str:
    if method:
        return f"({arguments[0]}).{name}({', '.join(arguments[1:])})"
    return f"{name}({', '.join(arguments)})"


def test_the_documentation_names_each_function_and_type() -> None:
    """docs/reference/workflow-json.md has the whole table."""
    folder = Path(__file__).parents[3] / "docs" / "reference"
    page = (folder / "workflow-json.md").read_text(encoding="utf-8")
    table = page[page.index("### Functions") : page.index("### Limits")]
    for name in FUNCTIONS:
        assert f"`{name}(" in table
    for name, known in METHODS.items():
        for kind in {overload.takes[0] for overload in known} - {"bytes", "list", "map"}:
            assert f"`{kind}.{name}(" in table or name == "size"
    for kind in TYPES:
        assert f"`{kind}`" in table
    for limit in (MOST_CHARACTERS, MOST_LEVELS, MOST_DEPTH, MOST_LOOPS, MOST_OPERATIONS):
        assert f"| {limit:,}" in page


@given(st.text(max_size=30) | _EXPRESSIONS.flatmap(lambda text: st.permutations(text)).map("".join))
def test_a_text_that_another_parser_refuses_is_refused(text: str) -> None:
    """The grammar is no wider than CEL's, so other tools can read definitions."""
    try:
        parse(text)
    except CelSyntaxError:
        return
    cel.compile(text)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_data_is_read_as_it_is(data: Any) -> None:
    """Values are not converted."""
    assert value_of("x", data) is data
    assert value_of("[x] == [x] && x in [x]", json.loads(json.dumps(data))) is True
