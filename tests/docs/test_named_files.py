"""Does each file and name exist that the documentation mentions?"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest

from tests.support.pages import pages, prose
from tests.support.processes import ROOT

PACKAGE = ROOT / "multiagents"
ROOMS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())
CHECKED = re.compile(
    rf"`((?:multiagents|tests|bench|docs|examples|workers|{'|'.join(ROOMS)})/[\w./-]+\.(?:py|lua|toml|md|json|ya?ml|patch))`"
)
ARCHITECTURE = ROOT / "docs" / "explanation" / "architecture.md"
NAMED = re.findall(r"^\| .+ \| `(\S+\.\w+)` \| (`[^|]+`) \|$", prose(ARCHITECTURE), re.MULTILINE)
"""Rows of the tables of questions and terms: a file of the package, and names in it."""


def _exists(path: str) -> bool:
    return any((root / path).exists() for root in (ROOT, PACKAGE))


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    """A path begins at the root of the project or at a package of multiagents."""
    assert [path for path in CHECKED.findall(prose(page)) if not _exists(path)] == []


def test_the_page_names_each_room() -> None:
    """The levels of the first table are the layers of the contract."""
    table = prose(ARCHITECTURE).partition("## Rooms")[2].partition("More contracts")[0]
    rooms: dict[int, set[str]] = defaultdict(set)
    for level, room in re.findall(r"^\| (\d+) \| `(\w+)` \|", table, re.MULTILINE):
        rooms[int(level)].add(room)
    contract = (ROOT / "pyproject.toml").read_text("utf-8").partition("layers = [")[2]
    layers = re.findall(r'"([\w| ]+)"', contract.partition("]")[0])
    wanted = [set(layer.split(" | ")) for layer in layers if layer != "__main__"]
    assert [rooms[level] for level in sorted(rooms, reverse=True)] == wanted


@pytest.mark.parametrize(("file", "names"), NAMED, ids=lambda value: value.strip("`"))
def test_a_name_stands_in_the_file_beside_it(file: str, names: str) -> None:
    """A reader of the tables in docs/explanation/architecture.md finds each name."""
    text = (PACKAGE / file).read_text("utf-8")
    found = re.findall(r"`(\w+)`", names)
    assert found
    assert [name for name in found if not re.search(rf"\b{name}\b", text)] == []


def test_the_tables_have_the_questions_and_the_terms() -> None:
    """Each table has at least twenty rows."""
    page = prose(ARCHITECTURE)
    questions, terms = page.partition("## Where is it?")[2].split("## Glossary")
    assert len(re.findall(r"^\| .+\? \|", questions, re.MULTILINE)) >= 20
    assert len(re.findall(r"^\| [a-z].+ \|", terms.partition("\n## ")[0], re.MULTILINE)) >= 20
    assert len(NAMED) >= 40
