"""Does a class name lead to one class?"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.support.processes import ROOT

PACKAGE = ROOT / "multiagents"


def classes() -> Iterator[tuple[str, Path]]:
    """Each public class of the package, with its module's path."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield node.name, path.relative_to(PACKAGE)


def test_no_two_modules_define_a_class_of_the_same_name() -> None:
    """A search for a public class's name finds one definition."""
    modules: dict[str, set[str]] = defaultdict(set)
    for name, path in classes():
        modules[name].add(str(path))
    assert len(modules) > 200
    assert {name: found for name, found in modules.items() if len(found) > 1} == {}
