"""What does a CEL condition promise, and which names does it read?"""

from __future__ import annotations

import pickle
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiagents.core.exceptions import MultiAgentsError
from multiagents.workflows.cel.tokens import CelSyntaxError
from multiagents.workflows.expression_names import paths
from multiagents.workflows.expressions import (
    ConditionError,
    check_argument,
    check_condition,
    check_syntax,
    compute,
    evaluate,
)

VALUES: dict[str, Any] = {
    "input": {
        "amount": 5,
        "items": [{"q": 1}, {"q": 2}],
        "card": "4111",
        "title": "\u041f\u0440\u0438\u0432\u0435\u0442",
        "bad": "secret(",
        "a-b": None,
        "none": None,
    },
    "steps": {
        "charge": {"state": "succeeded", "result": {"fee": 1.5}},
        "ship-it": {"state": "skipped"},
    },
}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("input.amount > 3", True),
        ("input.amount > 3.5 && steps.charge.result.fee < 2", True),
        ("steps['ship-it'].state == 'succeeded'", False),
        ("input.items.exists(item, item.q == 2)", True),
        ("input.items.all(steps, steps.q > 0)", True),
        ("has(input.voucher) || input['a-b'] == null", True),
        ("has(steps['ship-it'].result)", False),
        ("// small orders only\ninput.amount < 10", True),
    ],
)
def test_a_condition_is_read_from_input_and_steps(expression: str, expected: bool) -> None:
    """Conditions read the saga's input and its steps' states and results."""
    assert evaluate(expression, VALUES) is expected


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("input.amout > 3", "missing key 'amout' in input"),
        ("steps.charge.result.tax > 0", "missing key 'tax' in steps.charge.result"),
        ("steps['ship-it'].result.id == 1", "the step is skipped and has none"),
        ("steps.pay.state == 'succeeded'", "missing key 'pay' in steps"),
        ("input.amount", "gives an int, expected true or false"),
        ("'yes'", "gives a string, expected true or false"),
        ("null", "gives null, expected true or false"),
        (
            "input.card + 1 == 2",
            "+ does not take input.card (a string) and 1 (an int); write int(input.card)",
        ),
        (
            "input['a-b'] > 1",
            "> does not take input['a-b'] (null) and 1 (an int); guard it with"
            " input['a-b'] != null && …",
        ),
        (
            "input.none > 1",
            "guard it with has(input.none) && input.none != null && …",
        ),
        (
            "input.items > 1",
            "> does not take input.items (a list) and 1 (an int); guard it with"
            " has(input.items) && type(input.items) == int && …",
        ),
        ("input.amount * 1.5 > 3", "write double(input.amount)"),
        ("input.items.q == 1", "input.items is a list, expected a map ('q' is read from it)"),
        ("has(input.none.q)", "input.none is null, expected a map"),
        (
            "input.card.size() > 9 || input.none.size() == 0",
            "input.none is null, expected a string",
        ),
        (
            "input.amount.startsWith('a')",
            "input.amount is an int, expected a string (the argument of startsWith",
        ),
        ("input.card.getHours() > 3", "write timestamp(input.card)"),
        ("timestamp(input.card).getHours() > 3", "input.card is not an RFC 3339 time with a zone"),
        ("int(input.title) > 3", "input.title is not a whole number (the argument of int)"),
        ("input.title.matches(input.bad)", "input.bad is not a regular expression"),
        (
            "input.amount && true",
            "input.amount is an int, expected a bool (CEL has no truthy values)",
        ),
        ("input.amount / 0 == 1", "division by zero"),
        (
            "input.items[7].q == 1",
            "index out of bounds in input.items; guard it with size(input.items) > 7 && …",
        ),
        ("input['b-c'] == 1", "missing key 'b-c' in input; guard it with 'b-c' in input && …"),
        ("9223372036854775807 + input.amount > 0", "arithmetic overflow"),
        ("input.amount >", "at character 15: it ends too early; expected a value"),
        ("input.amount\n  > (3", "at line 2, character 7: it ends too early"),
        ("  ", "is empty"),
    ],
)
def test_a_condition_without_an_answer_says_why(expression: str, reason: str) -> None:
    """The error names expression, step and reason; no other value counts as true or false."""
    with pytest.raises(ConditionError) as raised:
        evaluate(expression, VALUES, step="pay")
    assert reason in str(raised.value)
    assert "step 'pay': CEL " in str(raised.value)
    assert repr(expression) in str(raised.value)


@given(st.data())
def test_a_condition_error_does_not_show_the_data(data: st.DataObject) -> None:
    """Data, computed keys and arguments may be secrets."""
    secret = "4111-secret"
    part = st.sampled_from(["input.s", "input[input.s]", "input.l[0]", "input.m.s", "input.l", "1"])
    one, other = data.draw(part), data.draw(part)
    shape = data.draw(
        st.sampled_from(
            [
                *("{} + {}", "{} < {}", "!{}", "-{}", "{} in {}", "{}[{}]", "{{{}: {}}}.x"),
                *("int({})", "double({})", "timestamp({})", "duration({})", "uint({})"),
                *("{}.matches({} + '(')", "timestamp('2020-01-01T00:00:00Z').getHours({})"),
                *("{}.contains({})", "{} ? 1 : 2", "{}.all(x, x > {})", "{}.map(x, {})[9]"),
            ]
        )
    )
    expression = shape.format(one, other)
    values = {"input": {"s": secret, "l": [secret], "m": {"s": secret}}}
    assert secret not in _error_of(expression, values)


def _error_of(expression: str, values: dict[str, Any]) -> str:
    try:
        compute(expression, values)
    except ConditionError as error:
        return str(error)
    return ""


def test_a_condition_error_survives_pickling() -> None:
    """The error keeps all its parts across processes."""
    error = ConditionError("input.x", "missing key 'x' in input", "pay")
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, ConditionError)
    assert isinstance(copy, MultiAgentsError)
    assert (str(copy), copy.expression, copy.step) == (str(error), "input.x", "pay")


@pytest.mark.parametrize(
    ("expression", "hint"),
    [
        ("input.debited", "guard it with has(input.debited) ? input.debited : null"),
        ("input['b-c']", "guard it with 'b-c' in input ? input['b-c'] : null"),
        (
            "input.none + 1",
            "guard it with has(input.none) && input.none != null ? input.none + 1 :",
        ),
        ("input.items[7].q", "guard it with size(input.items) > 7 ? input.items[7].q : null"),
        ("true ? input.debited : 1", "guard it with has(input.debited) ? … : null"),
    ],
)
def test_the_hint_for_an_argument_is_an_argument(expression: str, hint: str) -> None:
    """A condition's guard would pass true or false; the hint's guard always passes a value."""
    with pytest.raises(ConditionError) as raised:
        compute(expression, VALUES)
    assert hint in str(raised.value)
    assert "&& …" not in str(raised.value)
    if "…" not in hint:
        assert compute(str(raised.value).rpartition("guard it with ")[2], VALUES) is None


def test_an_argument_may_be_any_json() -> None:
    """A plain task gets the expression's value unchanged."""
    assert compute("input.items.map(item, item.q)", VALUES) == [1, 2]
    assert compute("{'fee': steps.charge.result.fee, 'to': null}", VALUES) == {
        "fee": 1.5,
        "to": None,
    }


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("timestamp('2020-01-01T00:00:00Z')", "a timestamp"),
        ("[duration('1h')]", "a duration"),
        ("{'a': b'x'}", "bytes"),
        ("{1: 2}", "a map with keys that are not strings"),
        ("1.0 / 0.0", "a number that is not finite"),
    ],
)
def test_an_argument_that_is_no_json_is_refused(expression: str, kind: str) -> None:
    """The message names the type, which could not travel to the task."""
    with pytest.raises(ConditionError, match=f"gives {kind}, which is not JSON"):
        compute(expression, VALUES)


def test_an_argument_of_a_plain_task_is_of_plain_types() -> None:
    """A worker without this package can read it with any serializer."""
    found = compute("[input.amount, 1u, type(input.amount), {'a': uint(2)}]", VALUES)
    assert found == [5, 1, "int", {"a": 2}]
    assert [type(item) for item in found] == [int, int, str, dict]


@pytest.mark.parametrize(
    ("expression", "mistake"),
    [
        ("input.amount > 1 || now() > 3", "unknown function 'now'; known: bytes, contains"),
        ("input.x.lenght() > 1", "unknown function 'lenght'"),
        ("input.x.startswith('a')", "did you mean 'startsWith'?"),
        (
            "matches(input.x, 'a')",
            "function 'matches' is called as string.matches(string), not on its own",
        ),
        ("input.x.int() > 3", "function 'int' is called as int(int), int(uint), int(double)"),
        ("size(1) > 0", "size(1): size does not take an int; it is size(string), size(bytes)"),
        ("input.x.contains(1)", "contains does not take data, an int; it is string.contains("),
        ("size(input.x, 1) > 0", "size does not take data, an int"),
        ("'a' > 1", "'a' > 1: > does not take a string and an int"),
        ("size(input.x) > 'a'", "> does not take an int and a string"),
        ("input.x == 1 && size(input.x)", "size(input.x): gives an int, expected true or false"),
        ("size(input.x)", "gives an int, expected true or false; compare it with something"),
        ("1 + 1.5 > input.x", "+ does not take an int and a double; convert one of them"),
        ("input.at.getHours('Europe/Olso') > 1", "'Europe/Olso' is not a time zone"),
        ("timestamp('2026-01-05') < timestamp(input.at)", "is not an RFC 3339 time with a zone"),
        ("duration('1d') > duration('1h')", "'1d' is not a duration, such as '1h30m'"),
        ("input.x.matches('a(')", "'a(' is not a regular expression in RE2 syntax"),
        ("input.x.matches('a{99999}')", "takes more than 2,000,000 operations"),
        ("input.all(x, size(x))", "size(x): gives an int, expected true or false in all"),
        ("9223372036854775808 > input.x", "9223372036854775808 does not fit in 64 bits"),
        ("input.x == 'a", 'at character 12: "\'" begins a text that does not end'),
        ("input.if = 1", "'=' is not valid CEL"),
        ("input.x.all(y.z, true)", "all(…) takes a variable and an expression"),
        ("has(input)", "has(…) takes one field, as in has(input.coupon)"),
        ("let == 1", "'let' is a reserved word of CEL"),
        ("input.x == '\\q'", "is not an escape of CEL"),
        ("x{a: 1}", "unexpected '{'"),
    ],
)
def test_what_can_never_have_a_value_is_refused_without_evaluating(
    expression: str, mistake: str
) -> None:
    """The message names the function, the types given and the types it takes."""
    with pytest.raises(ConditionError) as raised:
        check_condition(expression)
    assert mistake in str(raised.value)


@pytest.mark.parametrize(
    "expression",
    [
        "-input.amount < 1 && !(size(input.items) in [1, 2]) || input.card.matches('4')",
        "input.at.getHours('Europe/Oslo') < 16",
        "timestamp(input.at) - timestamp(input.since) > duration('36h')",
        "input.x ? input.y : size(input.z) == 1",
        "type(input.x) == int && dyn(1) == input.y",
    ],
)
def test_what_may_have_a_value_passes(expression: str) -> None:
    """Data of unknown type may have any type."""
    check_condition(expression)


def test_an_argument_that_can_be_no_json_is_refused_without_evaluating() -> None:
    """Each saga would fail at such an argument."""
    with pytest.raises(ConditionError, match="gives a timestamp, which is not JSON"):
        check_argument("timestamp(input.at)")
    check_argument("string(timestamp(input.at))")


_PIECES = [
    *(
        "input",
        ".",
        "x",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "?",
        "!",
        "-",
        "+",
        "/",
        "%",
        "==",
        "<",
    ),
    *(
        "&&",
        "||",
        " in ",
        "1",
        "1u",
        "-9223372036854775808",
        "1.5",
        "'a'",
        "b'\\xff'",
        "true",
        "null",
    ),
    *(
        "size(",
        ".size()",
        ".all(x, ",
        ".map(x, ",
        "has(",
        "int(",
        "timestamp('",
        "'",
        '"""',
        "type(",
    ),
    *(
        ".matches('",
        ".getHours('",
        "duration(",
        "\\u",
        "//",
        "\n",
        "0x",
        "e9",
        "r'",
        "x in ",
        "string(",
    ),
]


@given(st.text(max_size=40) | st.lists(st.sampled_from(_PIECES), max_size=12).map("".join))
def test_any_text_is_an_expression_or_a_condition_error(text: str) -> None:
    """No text in a definition file raises another exception."""
    for use in (check_condition, check_argument):
        with suppress(ConditionError):
            use(text)
    with suppress(ConditionError):
        compute(text, VALUES)
    try:
        paths(text)
    except CelSyntaxError:
        with pytest.raises(ConditionError):
            check_syntax(text)
