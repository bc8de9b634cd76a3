"""What does the error of an expression without a value say?

The error names the missing key or the wrong type, and the guard to write.  It shows names and
literals, which are in the definition, and never a value of the data, which may be a secret.
"""

from __future__ import annotations

from typing import Any

from multiagents.workflows.cel.functions import overloads, signatures
from multiagents.workflows.cel.syntax import Node
from multiagents.workflows.cel.values import NUMBERS, article, kind_of

_SHOWN = 60
"""Characters of a part of an expression in a message."""


class NoValue(Exception):
    """There is no value; an ``&&``, ``||``, ``all`` or ``exists`` around it may still have one."""

    def __init__(self, what: str, guard: str = "") -> None:
        """``guard``: a condition under which there is a value."""
        super().__init__(what, guard)
        self.what = what
        self.guard = guard

    @property
    def reason(self) -> str:
        """The message for a condition, which must be a bool."""
        return f"{self.what}; guard it with {self.guard} && …" if self.guard else self.what

    def of_argument(self, expression: str) -> str:
        """The message for an argument, which needs a value in either case."""
        if not self.guard:
            return self.what
        whole = expression if len(expression) <= _SHOWN and "?" not in expression else "…"
        return f"{self.what}; guard it with {self.guard} ? {whole} : null"


def unselected(node: Node, owner: Any) -> NoValue:
    """Why a field cannot be read from its owner."""
    whole, field = node.parts[0], node.value
    if kind_of(owner) != "map":
        return unfit(whole, owner, "map", f"{field!r} is read from it")
    guard = f"has({shown(whole)}.{field})"
    if field == "result" and whole.kind in {"select", "index"} and "state" in owner:
        return NoValue(
            f"missing key 'result' in {shown(whole)}: the step is {owner['state']} and has none",
            guard,
        )
    return NoValue(f"missing key {field!r} in {shown(whole)}", guard)


def failed_call(node: Node, reason: str) -> NoValue:
    """A function's error about its last argument: with two arguments, a pattern or a zone."""
    return NoValue(f"{shown(node.parts[-1])} {reason} (the argument of {node.value})")


def unfit_call(node: Node, values: list[Any]) -> NoValue:
    """The error for the first argument that no overload takes, else for all arguments."""
    method = node.kind == "method"
    known = overloads(node.value, method=method)
    for place, (part, value) in enumerate(zip(node.parts, values, strict=True)):
        wanted = dict.fromkeys(each.takes[place] for each in known if place < len(each.takes))
        if wanted and kind_of(value) not in wanted:
            return unfit(part, value, " or ".join(wanted), f"the argument of {node.value}")
    given = ", ".join(map(kind_of, values)) or "nothing"
    what = f"{node.value} does not take ({given})" if known else f"unknown function {node.value!r}"
    return NoValue(f"{what}; it is {signatures(node.value, method=method)}" if known else what)


def shown(node: Node) -> str:
    """The text of a part of an expression, cut if it is long."""
    text = " ".join(node.text.split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def unfit(node: Node, value: Any, wanted: str, why: str) -> NoValue:
    """The error for a value of the wrong type, with advice; ``wanted``: kinds joined by "or"."""
    kind, first = kind_of(value), wanted.split()[0].rstrip(",")
    what = f"{shown(node)} is {article(kind)}, expected {article(wanted)} ({why})"
    if value is None:
        return NoValue(what, _null_guard(node))
    if kind == "string" and first in _READ_FROM_TEXT:
        return NoValue(f"{what}; write {first}({shown(node)})")
    return NoValue(what, _type_guard(node, first))


_READ_FROM_TEXT = NUMBERS | {"timestamp", "duration"}


def _null_guard(node: Node) -> str:
    return f"{_has_guard(node)}{shown(node)} != null"


def _type_guard(node: Node, wanted: str) -> str:
    return f"{_has_guard(node)}type({shown(node)}) == {wanted}"


def _has_guard(node: Node) -> str:
    return f"has({shown(node)}) && " if node.kind == "select" else ""


def mismatch(node: Node, one: Any, other: Any) -> NoValue:
    """The error for two operands that an operator does not take together."""
    left, right = node.parts
    kinds = kind_of(one), kind_of(other)
    what = (
        f"{node.kind} does not take {shown(left)} ({article(kinds[0])}) and {shown(right)}"
        f" ({article(kinds[1])})"
    )
    if "null" in kinds:
        return NoValue(what, _null_guard(node.parts[kinds.index("null")]))
    sides = sorted(zip(node.parts, kinds, (kinds[1], kinds[0]), strict=True), key=_is_literal)
    for part, kind, other in sides:
        if other in NUMBERS and kind in {"string", *NUMBERS} and other != kind:
            wanted = "double" if "double" in kinds else other
            if kind != wanted:
                return NoValue(f"{what}; write {wanted}({shown(part)})")
    part, _, other = sides[0]
    return NoValue(what, _type_guard(part, other))


def _is_literal(side: tuple[Node, str, str]) -> bool:
    return side[0].kind == "literal"
