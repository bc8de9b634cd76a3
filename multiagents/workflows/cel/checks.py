"""Can an expression have a value at all, and at what cost?

Data has an unknown kind (``dyn``) before evaluation; literals and the results of functions and
operators have a known one.  So the check finds a call that can never succeed when a workflow is
built, and its error lists the known functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from multiagents.core.near import did_you_mean, nearest
from multiagents.workflows.cel.arithmetic import result_kind
from multiagents.workflows.cel.evaluation import build
from multiagents.workflows.cel.functions import FUNCTIONS, METHODS, TYPES, overloads, signatures
from multiagents.workflows.cel.refusals import NoValue, shown
from multiagents.workflows.cel.scope import MOST_OPERATIONS, Scope, TooCostly
from multiagents.workflows.cel.syntax import Node
from multiagents.workflows.cel.values import KINDS, NUMBERS, ORDERED, article, kind_of

DYN = "dyn"
MOST_LOOPS = 2
"""Nested macros that each visit all of some data: a third level makes the cost cubic."""

_NAMES = {"input": "map", "steps": "map", "result": "map", "key": "string", "step_key": "string"}
_ALL = tuple(KINDS.values())
_KEYS = frozenset({"string", "int", "uint", "bool", DYN})


class TypeMistake(ValueError):
    """The expression can never have a value."""


def check(node: Node) -> str:
    """The kind that the expression gives.  Raises TypeMistake."""
    loops = _loops(node, None)
    if loops > MOST_LOOPS:
        raise TypeMistake(
            f"has {loops} nested macros (all, exists, map, …) over data; at most {MOST_LOOPS}:"
            " prepare the data in a step"
        )
    return _kind(node)


def _kind(node: Node) -> str:
    kinds = [_kind(part) for part in node.parts]
    return _RULES[node.kind](node, kinds)


def _fail(node: Node, why: str) -> TypeMistake:
    return TypeMistake(f"{shown(node)}: {why}")


def _one_of(node: Node, kind: str, wanted: Iterable[str], what: str) -> None:
    if kind != DYN and kind not in wanted:
        raise _fail(node, f"gives {_a(kind)}, expected {what}")


def _a(kind: str) -> str:
    return "data" if kind == DYN else article(kind)


def _literal(node: Node, _: list[str]) -> str:
    return kind_of(node.value)


def _name(node: Node, _: list[str]) -> str:
    if node.bound:
        return DYN
    return _NAMES.get(node.value, "type" if node.value in TYPES else DYN)


def _select(node: Node, kinds: list[str]) -> str:
    _one_of(node.parts[0], kinds[0], {"map"}, f"a map to read {node.value!r} from")
    return "bool" if node.kind == "has" else DYN


def _index(node: Node, kinds: list[str]) -> str:
    _one_of(node.parts[0], kinds[0], {"list", "map"}, "a list or a map to index")
    if kinds[0] == "list":
        _one_of(node.parts[1], kinds[1], {"int", "uint"}, "a whole number as the index of a list")
    return DYN


def _map(node: Node, kinds: list[str]) -> str:
    for part, kind in zip(node.parts[::2], kinds[::2], strict=True):
        _one_of(part, kind, _KEYS, "a text, a whole number or a bool as the key of a map")
    return "map"


def _choice(node: Node, kinds: list[str]) -> str:
    _one_of(node.parts[0], kinds[0], {"bool"}, "true or false before ?")
    return _joined(kinds[1:])


def _joined(kinds: Iterable[str]) -> str:
    """The kind that all have; ``dyn`` if they differ."""
    found = set(kinds)
    return found.pop() if len(found) == 1 else DYN


def _logic(node: Node, kinds: list[str]) -> str:
    for part, kind in zip(node.parts, kinds, strict=True):
        _one_of(part, kind, {"bool"}, f"true or false for {node.kind}")
    return "bool"


def _equality(node: Node, kinds: list[str]) -> str:
    return "bool"


def _order(node: Node, kinds: list[str]) -> str:
    one, other = kinds
    if not any(_ordered(a, b) for a in _may_be(one) for b in _may_be(other)):
        raise _fail(node, f"{node.kind} does not take {_a(one)} and {_a(other)}")
    return "bool"


def _ordered(one: str, other: str) -> bool:
    return (one in NUMBERS and other in NUMBERS) or (one == other and one in ORDERED)


def _may_be(kind: str) -> tuple[str, ...]:
    return _ALL if kind == DYN else (kind,)


def _contained(node: Node, kinds: list[str]) -> str:
    _one_of(node.parts[1], kinds[1], {"list", "map"}, "a list or a map after `in`")
    return "bool"


def _arithmetic(node: Node, kinds: list[str]) -> str:
    if len(kinds) == 1:
        _one_of(node.parts[0], kinds[0], {"int", "double"}, "a signed number after -")
        return kinds[0]
    one, other = kinds
    found = {result_kind(node.kind, a, b) for a in _may_be(one) for b in _may_be(other)} - {None}
    if not found:
        mixed = {one, other} <= NUMBERS
        hint = f"; convert one of them, as in {one}(…)" if mixed else ""
        raise _fail(node, f"{node.kind} does not take {_a(one)} and {_a(other)}{hint}")
    return _joined(str(kind) for kind in found)


def _call(node: Node, kinds: list[str]) -> str:
    method = node.kind == "method"
    known = overloads(node.value, method=method)
    if not known:
        raise TypeMistake(_unknown(node.value, method=method))
    fitting = [overload for overload in known if overload.fits(tuple(kinds))]
    if not fitting:
        given = ", ".join(_a(kind) for kind in kinds) or "nothing"
        raise _fail(
            node,
            f"{node.value} does not take {given}; it is {signatures(node.value, method=method)}",
        )
    _try_constants(node)
    return _joined(overload.gives for overload in fitting)


def _unknown(name: str, *, method: bool) -> str:
    if overloads(name, method=not method):
        return (
            f"function {name!r} is called as {signatures(name, method=not method)}, not"
            f" {'on a value' if method else 'on its own'}"
        )
    known = sorted({*FUNCTIONS, *METHODS})
    told = did_you_mean(nearest(name, known), f"known: {', '.join(known)}")
    return f"unknown function {name!r}; {told}"


def _try_constants(node: Node) -> None:
    """Evaluate literal arguments whose error no data can change: a pattern, a zone, a time."""
    if all(part.kind == "literal" for part in node.parts):
        trial = node
    elif node.value == "matches" and node.parts[1].kind == "literal":
        trial = _with_first(node, "")
    elif node.value.startswith("get") and node.parts[-1].kind == "literal":
        epoch = Node("literal", (), "1970-01-01T00:00:00Z", "'1970-01-01T00:00:00Z'")
        trial = Node(
            "method", (Node("call", (epoch,), "timestamp", ""), node.parts[1]), node.value, ""
        )
    else:
        return
    try:
        build(trial)(Scope({}))
    except NoValue as error:
        raise _fail(node, error.reason) from error
    except TooCostly as error:
        raise _fail(node, f"takes more than {MOST_OPERATIONS:,} operations") from error


def _with_first(node: Node, value: str) -> Node:
    return Node(
        node.kind, (Node("literal", (), value, "''"), *node.parts[1:]), node.value, node.text
    )


def _macro(node: Node, kinds: list[str]) -> str:
    name, _ = node.value
    _one_of(node.parts[0], kinds[0], {"list", "map"}, f"a list or a map for {name}")
    conditions = kinds[1:-1] if name == "map" else kinds[1:]
    for part, kind in zip(node.parts[1:], conditions, strict=False):
        _one_of(part, kind, {"bool"}, f"true or false in {name}")
    return "list" if name in {"map", "filter"} else "bool"


def _loops(node: Node, innermost: str | None) -> int:
    """The depth of nested macros, without those over an element of the macro around them."""
    if node.kind != "macro":
        return max((_loops(part, innermost) for part in node.parts), default=0)
    owner, *bodies = node.parts
    read = {part.value for part in owner.walk() if part.kind == "name"}
    own = bool(read - {innermost})
    inside = max(_loops(body, node.value[1]) for body in bodies)
    return max(_loops(owner, innermost), own + inside)


_RULES: dict[str, Callable[[Node, list[str]], str]] = {
    "literal": _literal,
    "name": _name,
    **dict.fromkeys(("select", "has"), _select),
    "index": _index,
    "list": lambda _, __: "list",
    "map": _map,
    "choice": _choice,
    **dict.fromkeys(("!", "&&", "||"), _logic),
    **dict.fromkeys(("==", "!="), _equality),
    **dict.fromkeys(("<", "<=", ">", ">="), _order),
    "in": _contained,
    **dict.fromkeys(("+", "-", "*", "/", "%"), _arithmetic),
    **dict.fromkeys(("call", "method"), _call),
    "macro": _macro,
}
