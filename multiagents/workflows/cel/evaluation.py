"""What is the value of an expression for these names?

Each node becomes one function of a `Scope`.  The number of operations is bounded for any data, so
that a condition can neither block a process nor fill its memory.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from multiagents.workflows.cel.arithmetic import Undefined, calculate, negative
from multiagents.workflows.cel.functions import TYPES, overloads
from multiagents.workflows.cel.refusals import (
    NoValue,
    failed_call,
    mismatch,
    shown,
    unfit,
    unfit_call,
    unselected,
)
from multiagents.workflows.cel.scope import Run, Scope
from multiagents.workflows.cel.syntax import Node
from multiagents.workflows.cel.values import (
    NUMBERS,
    ORDERED,
    CelType,
    equal,
    from_key,
    kind_of,
    map_key,
)


def build(node: Node) -> Run:
    """The function that evaluates the node; it raises NoValue or TooCostly."""
    return _BUILDERS[node.kind](node)


# ---- names and parts ----


def _literal(node: Node) -> Run:
    value = node.value
    return lambda _: value


def _name(node: Node) -> Run:
    name = node.value
    if node.bound:
        return lambda scope: scope.bound[name]

    def run(scope: Scope) -> Any:
        if name in scope.names:
            return scope.names[name]
        if name in TYPES:
            return CelType(name)
        raise NoValue(f"unknown name {name!r}")

    return run


def _select(node: Node) -> Run:
    owner, field = build(node.parts[0]), node.value

    def run(scope: Scope) -> Any:
        found = owner(scope)
        try:
            return found[field]
        except (KeyError, TypeError, IndexError):
            raise unselected(node, found) from None

    return run


def _has(node: Node) -> Run:
    owner, field = build(node.parts[0]), node.value

    def run(scope: Scope) -> bool:
        found = owner(scope)
        if kind_of(found) != "map":
            raise unselected(node, found)
        return field in found

    return run


def _index(node: Node) -> Run:
    owner, index = map(build, node.parts)

    def run(scope: Scope) -> Any:
        found, place = owner(scope), index(scope)
        kind = kind_of(found)
        if kind == "map":
            return _of_map(node, found, place)
        if kind == "list":
            return _of_list(node, found, place)
        raise unfit(node.parts[0], found, "list or map", "it is indexed")

    return run


def _of_map(node: Node, found: Mapping[Any, Any], key: Any) -> Any:
    usable = map_key(key)
    if usable in found:
        return found[usable]
    whole, index = node.parts
    if index.kind != "literal":  # a name computed from data could be a secret
        raise NoValue(f"missing key in {shown(whole)} (its name is computed, so it is not shown)")
    if isinstance(key, str) and "state" in found and key == "result":
        raise unselected(Node("select", (whole,), key, node.text), found)
    raise NoValue(f"missing key {key!r} in {shown(whole)}", f"{shown(index)} in {shown(whole)}")


def _of_list(node: Node, found: list[Any], place: Any) -> Any:
    whole, index = node.parts
    if kind_of(place) not in {"int", "uint"}:
        raise unfit(index, place, "int", f"{shown(whole)} is a list")
    if 0 <= place < len(found):
        return found[place]
    raise NoValue(
        f"index out of bounds in {shown(whole)}", f"size({shown(whole)}) > {shown(index)}"
    )


def _list(node: Node) -> Run:
    items = [build(part) for part in node.parts]
    return lambda scope: [item(scope) for item in items]


def _map(node: Node) -> Run:
    keys = list(zip(node.parts[::2], map(build, node.parts[::2]), strict=True))
    values = [build(part) for part in node.parts[1::2]]

    def run(scope: Scope) -> dict[Any, Any]:
        made = {}
        for (part, key), value in zip(keys, values, strict=True):
            found = key(scope)
            usable = None if isinstance(found, float) else map_key(found)
            if usable is None:
                raise unfit(part, found, "string, int or bool", "it is the key of a map")
            made[usable] = value(scope)
        return made

    return run


# ---- logic ----


def _choice(node: Node) -> Run:
    condition, first, second = map(build, node.parts)
    whole = node.parts[0]
    return lambda scope: (first if _truth(whole, condition(scope)) else second)(scope)


def _truth(node: Node, value: Any) -> bool:
    if value is True or value is False:
        return value
    raise unfit(node, value, "bool", "CEL has no truthy values")


def _not(node: Node) -> Run:
    part = node.parts[0]
    run = build(part)
    return lambda scope: not _truth(part, run(scope))


def _logic(node: Node) -> Run:
    """``&&`` and ``||``: a decisive operand wins over an operand without a value."""
    decisive = node.kind == "||"
    parts = [(part, build(part)) for part in node.parts]

    def run(scope: Scope) -> bool:
        refusal: NoValue | None = None
        for part, each in parts:
            try:
                if _truth(part, each(scope)) is decisive:
                    return decisive
            except NoValue as error:
                refusal = refusal or error
        if refusal is not None:
            raise refusal
        return not decisive

    return run


# ---- operators ----


def _equality(node: Node) -> Run:
    left, right = map(build, node.parts)
    wanted = node.kind == "=="
    return lambda scope: equal(left(scope), right(scope), scope.spend) is wanted


_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _order(node: Node) -> Run:
    left, right = map(build, node.parts)
    compare = _ORDER[node.kind]

    def run(scope: Scope) -> bool:
        one, other = left(scope), right(scope)
        first, second = kind_of(one), kind_of(other)
        if first in NUMBERS and second in NUMBERS:
            return compare(one, other)
        if first == second and first in ORDERED:
            if first in {"string", "bytes"}:
                scope.spend(min(len(one), len(other)) // 512)
            return compare(one, other)
        raise mismatch(node, one, other)

    return run


def _contained(node: Node) -> Run:
    left, right = map(build, node.parts)

    def run(scope: Scope) -> bool:
        item, whole = left(scope), right(scope)
        kind = kind_of(whole)
        if kind == "map":
            return map_key(item) in whole
        if kind == "list":
            scope.spend(len(whole))
            return any(equal(item, each, scope.spend) for each in whole)
        raise unfit(node.parts[1], whole, "list or map", "`in` searches it")

    return run


def _arithmetic(node: Node) -> Run:
    left, right = map(build, node.parts)
    sign = node.kind

    def run(scope: Scope) -> Any:
        one, other = left(scope), right(scope)
        try:
            return calculate(sign, one, other, scope.spend)
        except Undefined as error:
            raise NoValue(f"{shown(node)}: {error}") from error
        except LookupError:
            raise mismatch(node, one, other) from None

    return run


def _sign(node: Node) -> Run:
    if len(node.parts) == 2:
        return _arithmetic(node)
    part = node.parts[0]
    run = build(part)

    def negated(scope: Scope) -> Any:
        value = run(scope)
        try:
            return negative(value)
        except Undefined as error:
            raise NoValue(f"{shown(node)}: {error}") from error
        except LookupError:
            raise unfit(part, value, "int or double", "it is negated") from None

    return negated


# ---- calls and macros ----


def _call(node: Node) -> Run:
    name, method = node.value, node.kind == "method"
    known = overloads(name, method=method)
    parts = [build(part) for part in node.parts]

    def run(scope: Scope) -> Any:
        values = [part(scope) for part in parts]
        kinds = tuple(map(kind_of, values))
        for overload in known:
            if overload.fits(kinds):
                try:
                    return overload.run(*values, scope.spend)
                except ValueError as error:
                    raise failed_call(node, str(error)) from error
        raise unfit_call(node, values)

    return run


def _macro(node: Node) -> Run:
    kind, variable = node.value
    owner, *bodies = map(build, node.parts)
    cost = sum(part.size for part in node.parts[1:])
    walk = _MACROS[kind]

    def run(scope: Scope) -> Any:
        found = owner(scope)
        if kind_of(found) not in {"list", "map"}:
            raise unfit(node.parts[0], found, "list or map", f"{kind} visits each element")
        items = found if isinstance(found, list) else [from_key(key) for key in found]
        before = scope.bound.get(variable)
        try:
            return walk(node, _each(scope, variable, items, cost), scope, bodies)
        finally:
            scope.bound[variable] = before

    return run


def _each(scope: Scope, variable: str, items: list[Any], cost: int) -> Any:
    for item in items:
        scope.spend(cost)
        scope.bound[variable] = item
        yield item


def _all(node: Node, items: Any, scope: Scope, bodies: list[Run]) -> bool:
    return _quantified(node, items, scope, bodies[0], decisive=False)


def _exists(node: Node, items: Any, scope: Scope, bodies: list[Run]) -> bool:
    return _quantified(node, items, scope, bodies[0], decisive=True)


def _quantified(node: Node, items: Any, scope: Scope, body: Run, *, decisive: bool) -> bool:
    refusal: NoValue | None = None
    for _ in items:
        try:
            if _truth(node.parts[1], body(scope)) is decisive:
                return decisive
        except NoValue as error:
            refusal = refusal or error
    if refusal is not None:
        raise refusal
    return not decisive


def _exists_one(node: Node, items: Any, scope: Scope, bodies: list[Run]) -> bool:
    return sum(_truth(node.parts[1], bodies[0](scope)) for _ in items) == 1


def _filter(node: Node, items: Any, scope: Scope, bodies: list[Run]) -> list[Any]:
    return [item for item in items if _truth(node.parts[1], bodies[0](scope))]


def _map_each(node: Node, items: Any, scope: Scope, bodies: list[Run]) -> list[Any]:
    if len(bodies) == 1:
        return [bodies[0](scope) for _ in items]
    return [bodies[1](scope) for _ in items if _truth(node.parts[1], bodies[0](scope))]


_MACROS = {
    "all": _all,
    "exists": _exists,
    "exists_one": _exists_one,
    "filter": _filter,
    "map": _map_each,
}

_BUILDERS: dict[str, Callable[[Node], Run]] = {
    "literal": _literal,
    "name": _name,
    "select": _select,
    "has": _has,
    "index": _index,
    "list": _list,
    "map": _map,
    "choice": _choice,
    "!": _not,
    "-": _sign,
    **dict.fromkeys(("&&", "||"), _logic),
    **dict.fromkeys(("==", "!="), _equality),
    **dict.fromkeys(_ORDER, _order),
    "in": _contained,
    **dict.fromkeys(("+", "*", "/", "%"), _arithmetic),
    **dict.fromkeys(("call", "method"), _call),
    "macro": _macro,
}
