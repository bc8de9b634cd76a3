"""Which plain data does a YAML text describe, and which values may have been meant as text?

YAML is read safely: plain data only, no key twice, with limits of depth and size, aliases
expanded.  To YAML, a bare ``no``, ``on`` or date is not text; if text was expected, the message
gives the quoted form and the line.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

MOST_LEVELS = 100
"""Levels of nested collections; a definition has at most seven."""
MOST_NODES = 200_000
"""Values with all aliases expanded: a few lines of aliases can expand to billions."""

_TEXT = "tag:yaml.org,2002:str"
_NOT_TEXT = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "timestamp"))


def parse(text: str) -> tuple[object, dict[str, str]]:
    """The data, and by place, how to quote each bare value that YAML does not read as text.

    A place is ``steps[0].name``.  Raises yaml.YAMLError.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, {}
        data: object = loader.construct_document(node)
        return data, dict(_bare(node, ""))
    finally:
        loader.dispose()


def _bare(node: yaml.Node, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _bare(value, f"{place}.{key.value}".lstrip("."))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _bare(item, f"{place}[{index}]")
    elif _is_bare(node):
        yield place, f"put it in quotes: '{node.value}' ({_where(node)})"


def _is_bare(node: yaml.Node) -> bool:
    """Whether it is a scalar without quotes that is not text."""
    return isinstance(node, yaml.ScalarNode) and node.style is None and node.tag in _NOT_TEXT


def _where(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}, column {node.start_mark.column + 1}"


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, within limits."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._level = 0
        self._nodes = 0
        self._sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # half of it is typed
        if self._level >= MOST_LEVELS:
            raise _refused(f"is nested deeper than {MOST_LEVELS} levels", mark)
        is_alias = self.check_event(yaml.AliasEvent)
        before, self._level = self._nodes, self._level + 1
        node = super().compose_node(parent, index)
        self._level -= 1
        if is_alias and node not in self._sizes:
            raise _refused("the alias is inside the value that it repeats", mark)
        self._nodes += self._sizes[node] if is_alias and node is not None else 1
        if self._nodes > MOST_NODES:
            raise _refused(f"has more than {MOST_NODES:,} values with aliases expanded", mark)
        if node is not None:
            self._sizes.setdefault(node, self._nodes - before)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """The node as written, before merge keys (``<<``) may legally repeat keys."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if _is_bare(key):
                key.tag = _TEXT  # a key is text: `on` is a name like any other
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise _refused(
                    f"key {key.value!r} appears twice in one mapping; keep one", key.start_mark
                )
            seen.add(key.value)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except ValueError as error:  # a bare 2025-02-30
            raise _refused(f"{node.value!r} is not a value: {error}", node.start_mark) from error


def _refused(problem: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(problem=problem, problem_mark=mark)
