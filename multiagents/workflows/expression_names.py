"""Which names does a CEL expression read?

A path is a free name with its constant selectors: ``steps.a.result.x`` and ``steps["a"].result``
are paths, ``steps[input.which]`` ends at ``steps``.  A macro's variable is not a free name.
"""

from __future__ import annotations

from collections.abc import Iterator

from multiagents.workflows.cel.functions import TYPES
from multiagents.workflows.cel.syntax import Node, parse

Path = tuple[str, ...]


def paths(expression: str) -> tuple[Path, ...]:
    """The free names of an expression with their constant selectors, in order of appearance.

    Raises CelSyntaxError.
    """
    return tuple(dict.fromkeys(_paths(parse(expression))))


def _paths(node: Node) -> Iterator[Path]:
    whole = _path(node)
    if whole is not None:
        yield whole
        return
    for part in node.parts:
        yield from _paths(part)


def _path(node: Node) -> Path | None:
    """The node as a path; None if it is not a path."""
    if node.kind == "name" and not node.bound and node.value not in TYPES:
        return (node.value,)
    if node.kind in {"select", "has"}:
        owner, selector = _path(node.parts[0]), node.value
    elif node.kind == "index" and isinstance(node.parts[1].value, str):
        owner, selector = _path(node.parts[0]), node.parts[1].value
        if node.parts[1].kind != "literal":
            return None
    else:
        return None
    return None if owner is None else (*owner, selector)
