"""Does a class name lead to one class, and a test file's name to one file?"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
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


def test_no_two_test_files_share_a_name() -> None:
    """pytest imports a test file by its bare name, so a second one ends the whole run."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(names) > 100
    assert [name for name, count in names.items() if count > 1] == []
