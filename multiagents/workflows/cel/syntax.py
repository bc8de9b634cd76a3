"""How is an expression's text read?

By precedence climbing over tokens, after the CEL grammar.  Depth is limited, so that neither
parsing nor evaluation reaches the interpreter's recursion limit, even for expressions that an
older version stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from multiagents.workflows.cel.tokens import (
    MOST_LEVELS,
    CelSyntaxError,
    Token,
    number,
    string,
    tokens,
    too_deep,
)

MOST_DEPTH = 200
"""Levels of nested operations: ``a + b + c`` has two."""

MACROS = {
    "all": (2,),
    "exists": (2,),
    "exists_one": (2,),
    "existsOne": (2,),
    "map": (2, 3),
    "filter": (2,),
}
"""The possible numbers of arguments of each, with the variable."""

_PRECEDENCE = {
    "||": 1,
    "&&": 2,
    **dict.fromkeys(("<", "<=", ">", ">=", "==", "!=", "in"), 3),
    **dict.fromkeys(("+", "-"), 4),
    **dict.fromkeys(("*", "/", "%"), 5),
}
_RESERVED = frozenset(
    {
        *("as", "break", "const", "continue", "else", "for", "function", "if", "import", "let"),
        *("loop", "package", "namespace", "return", "var", "void", "while"),
    }
)
_CONSTANTS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True)
class Node:
    """A part of an expression.

    ``kind``: ``literal`` (value), ``name`` (value: its text; ``bound`` by a macro or not),
    ``select`` and ``has`` (value: the field), ``index``, ``call`` (value: the function; the parts
    are the arguments), ``method`` (the same, with the receiver as the first part), ``list``,
    ``map`` (keys and values in turn), ``macro`` (value: kind and variable; parts: range, body …),
    ``choice``, and the operators by their own signs: ``! -`` with one part, the others with two or
    (``&&``, ``||``) more.
    """

    kind: str
    parts: tuple[Node, ...]
    value: Any
    text: str
    bound: bool = False

    @cached_property
    def depth(self) -> int:
        """The levels of nested nodes."""
        return 1 + max((part.depth for part in self.parts), default=0)

    @cached_property
    def size(self) -> int:
        """The number of its nodes."""
        return 1 + sum(part.size for part in self.parts)

    def walk(self) -> Iterator[Node]:
        """The node and all its parts."""
        yield self
        for part in self.parts:
            yield from part.walk()


@lru_cache(maxsize=4096)
def parse(text: str) -> Node:
    """The expression in the text.  Raises CelSyntaxError."""
    return _Parser(text, tokens(text)).whole()


class _Parser:
    """One parse of a text; ``scope`` holds the variables of the enclosing macros."""

    def __init__(self, text: str, tokens: list[Token]) -> None:
        self.text = text
        self.tokens = [*tokens, Token("end", "", len(text), len(text))]
        self.at = 0
        self.level = 0
        self.scope: list[str] = []

    # ---- tokens ----

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def next(self) -> Token:
        token = self.token
        self.at += token.kind != "end"
        return token

    def sees(self, *signs: str) -> bool:
        return self.token.kind in {"sign", "name"} and self.token.text in signs

    def takes(self, sign: str) -> bool:
        if self.sees(sign):
            self.at += 1
            return True
        return False

    def expect(self, sign: str) -> None:
        if not self.takes(sign):
            raise self.unexpected(repr(sign))

    def unexpected(self, wanted: str) -> CelSyntaxError:
        found = self.token
        what = "it ends too early" if found.kind == "end" else f"unexpected {found.text[:20]!r}"
        return CelSyntaxError(f"{what}; expected {wanted}", found.start)

    def node(self, kind: str, *parts: Node, value: Any = None, start: int, **more: Any) -> Node:
        end = self.tokens[self.at - 1].end
        made = Node(kind, parts, value, self.text[start:end], **more)
        if made.depth > MOST_DEPTH:
            raise CelSyntaxError(f"has more than {MOST_DEPTH} nested operations; split it", start)
        return made

    # ---- grammar ----

    def whole(self) -> Node:
        if self.token.kind == "end":
            raise CelSyntaxError("is empty; leave it out instead")
        found = self.expression()
        if self.token.kind != "end":
            raise self.unexpected("an operator or the end")
        return found

    def expression(self) -> Node:
        """A choice, or an expression that binds tighter."""
        start = self.token.start
        self.level += 1
        if self.level > MOST_LEVELS:
            raise too_deep(start)
        condition = self.binary(1)
        if self.takes("?"):
            first = self.binary(1)
            self.expect(":")
            second = self.expression()
            condition = self.node("choice", condition, first, second, start=start)
        self.level -= 1
        return condition

    def binary(self, least: int) -> Node:
        """Operators of at least that precedence; ``&&`` and ``||`` take all their operands."""
        start = self.token.start
        left = self.unary()
        while True:
            sign = self.token.text if self.token.kind in {"sign", "name"} else ""
            rank = _PRECEDENCE.get(sign, 0)
            if not rank or rank < least:
                return left
            parts = [left]
            while self.takes(sign):
                parts.append(self.binary(rank + 1))
                if rank > 2:
                    break
            left = self.node(sign, *parts, start=start)

    def unary(self) -> Node:
        signs = []
        while self.sees("!", "-"):
            after = self.tokens[self.at + 1]
            if self.token.text == "-" and after.kind == "number":
                break
            signs.append(self.next())
        if len(signs) > MOST_LEVELS:
            raise too_deep(signs[0].start)
        found = self.member()
        for sign in reversed(signs):
            found = self.node(sign.text, found, start=sign.start)
        return found

    def member(self) -> Node:
        start = self.token.start
        found = self.primary()
        while True:
            if self.takes("."):
                found = self.selection(found, start)
            elif self.takes("["):
                index = self.expression()
                self.expect("]")
                found = self.node("index", found, index, start=start)
            else:
                return found

    def selection(self, owner: Node, start: int) -> Node:
        name = self.identifier(reserved=True)
        if not self.sees("("):
            return self.node("select", owner, value=name, start=start)
        if name in MACROS:
            return self.macro(owner, name, start)
        return self.node("method", owner, *self.arguments(), value=name, start=start)

    def primary(self) -> Node:
        token = self.token
        if token.kind == "string":
            return self.node("literal", value=string(self.next()), start=token.start)
        if token.kind == "number" or self.sees("-"):
            return self.number()
        if token.kind == "name" and token.text in _CONSTANTS:
            return self.node("literal", value=_CONSTANTS[self.next().text], start=token.start)
        if token.kind == "name" or self.sees("."):
            return self.name()
        if self.takes("("):
            inner = self.expression()
            self.expect(")")
            return inner
        if self.takes("["):
            items = self.items("]", self.expression)
            return self.node("list", *items, start=token.start)
        if self.takes("{"):
            entries = self.items("}", self.entry)
            flat = [part for entry in entries for part in entry]
            return self.node("map", *flat, start=token.start)
        raise self.unexpected("a value")

    def name(self) -> Node:
        start = self.token.start
        dot = "." if self.takes(".") else ""
        name = dot + self.identifier(reserved=False)
        if not self.sees("("):
            return self.node("name", value=name, start=start, bound=name in self.scope)
        if name == "has":
            return self.has(start)
        return self.node("call", *self.arguments(), value=name, start=start)

    def identifier(self, *, reserved: bool) -> str:
        token = self.token
        if token.kind != "name" or token.text in _CONSTANTS or token.text == "in":
            raise self.unexpected("a name")
        if not reserved and token.text in _RESERVED:
            raise CelSyntaxError(f"{token.text!r} is a reserved word of CEL", token.start)
        return self.next().text

    def number(self) -> Node:
        start = self.token.start
        negative = self.takes("-")
        if self.token.kind != "number":
            raise self.unexpected("a number")
        value = number(self.next(), negative=negative)
        return self.node("literal", value=value, start=start)

    def arguments(self) -> list[Node]:
        self.expect("(")
        found: list[Node] = []
        if self.takes(")"):
            return found
        while True:
            found.append(self.expression())
            if not self.takes(","):
                self.expect(")")
                return found

    def items(self, closer: str, read: Any) -> list[Any]:
        """The items of a list or map; a comma may follow the last."""
        found: list[Any] = []
        while not self.takes(closer):
            found.append(read())
            if not self.takes(","):
                self.expect(closer)
                break
        return found

    def entry(self) -> tuple[Node, Node]:
        key = self.expression()
        self.expect(":")
        return key, self.expression()

    def has(self, start: int) -> Node:
        found = self.arguments()
        if len(found) != 1 or found[0].kind != "select":
            raise CelSyntaxError("has(…) takes one field, as in has(input.coupon)", start)
        return self.node("has", *found[0].parts, value=found[0].value, start=start)

    def macro(self, owner: Node, name: str, start: int) -> Node:
        """A macro such as ``list.all(x, condition)``; the variable is valid after its comma."""
        self.expect("(")
        place = self.token.start
        wanted = f"{name}(…) takes a variable and an expression, as in {name}(x, x.ok)"
        if self.token.kind != "name" or self.tokens[self.at + 1].text != ",":
            raise CelSyntaxError(wanted, place)
        variable = self.identifier(reserved=False)
        self.scope.append(variable)
        parts = []
        while self.takes(","):
            parts.append(self.expression())
        self.scope.pop()
        self.expect(")")
        if len(parts) + 1 not in MACROS[name]:
            raise CelSyntaxError(wanted, place)
        kind = "exists_one" if name == "existsOne" else name
        return self.node("macro", owner, *parts, value=(kind, variable), start=start)
