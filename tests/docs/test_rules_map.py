"""Does each rule of the engine have its tests, its section of the page, and its mutants?"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.simulation.planted.mutant import Mutant
from tests.simulation.planted.rules import MUTANTS, Trial, changed, main
from tests.support.processes import ROOT
from tests.support.rule_map import rules, rules_page, with_table

RULES = rules()
TESTS = [(rule.number, test) for rule in RULES for test in rule.tests]


@cache
def functions(file: str) -> frozenset[str]:
    """The functions of a module."""
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_every_rule_names_its_tests() -> None:
    """E1 to E21 stand in order; only rules of a later version have no tests."""
    assert [rule.number for rule in RULES] == [f"E{number}" for number in range(1, 22)]
    assert [rule.number for rule in RULES if not rule.tests] == ["E18"]


def test_no_rule_names_a_test_twice() -> None:
    """The page's table counts each id once."""
    assert [rule.number for rule in RULES if len(set(rule.tests)) < len(rule.tests)] == []


def test_the_page_states_each_rule() -> None:
    """docs/reference/rules.md has a section with title and text for each rule."""
    sections = re.findall(
        r"^### (E\d+\. .+)\n\n(?=\w)", rules_page().read_text("utf-8"), re.MULTILINE
    )
    assert sections == [rule.heading for rule in RULES]


def test_the_pages_table_is_made_of_the_data() -> None:
    """``python -m tests.support.rule_map`` writes it."""
    text = rules_page().read_text("utf-8")
    assert with_table(text) == text


@pytest.mark.parametrize(("rule", "test"), TESTS)
def test_a_named_test_is_there(rule: str, test: str) -> None:
    """The file that tests/rules.toml names has the test."""
    file, _, name = test.partition("::")
    assert name in functions(file), rule


def test_every_rule_is_broken_once_at_least() -> None:
    """Each rule has a mutant whose test tests/rules.toml names."""
    assert {mutant.rule for mutant in MUTANTS} == {rule for rule, _ in TESTS}
    assert {(mutant.rule, mutant.test) for mutant in MUTANTS} - set(TESTS) == set()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.rule}-{m.test.rpartition('_')[2]}")
def test_a_mutant_breaks_the_code_as_it_is(mutant: Mutant) -> None:
    """The text it replaces occurs in the code once.

    ``python -m tests.simulation.planted.rules`` runs its test.
    """
    assert changed(mutant) != (ROOT / mutant.file).read_text("utf-8")


# ---- what tries the mutants ----


def test_a_rule_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A run that tries nothing does not look like a success."""
    with pytest.raises(SystemExit, match="2"):
        main(["E99"])
    assert "'E99'" in capsys.readouterr().err


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose test is quick."""
    (tmp_path / "code.txt").write_text("right")
    (tmp_path / "test_it.py").write_text(
        "from pathlib import Path\n"
        "def test_right():\n"
        "    text = Path('code.txt').read_text()\n"
        "    while text == 'endless': pass\n"
        "    assert text in ('right', 'right too')\n"
        "def test_wrong():\n"
        "    assert False\n"
    )
    return tmp_path


def made(new: str, test: str = "right") -> Mutant:
    return Mutant("E1", "code.txt", "right", new, f"test_it.py::test_{test}")


def test_a_mutant_is_found_where_its_test_fails_or_does_not_end(project: Path) -> None:
    """A mutant survives a passing test; afterwards the code is whole again."""
    trial = Trial(project)
    assert trial.of(made("wrong")) == "found"
    assert trial.of(made("right too")) == "SURVIVED"
    trial.timeout_s = 2
    assert trial.of(made("endless")) == "found, for it did not end within 2 s"
    assert (project / "code.txt").read_text() == "right"


def test_a_test_that_fails_on_the_whole_code_finds_nothing(project: Path) -> None:
    """Such a test, or one that cannot run, makes the run fail."""
    trial = Trial(project)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="its test failed on the whole code"):
            trial.of(made("wrong", "wrong"))
    with pytest.raises(RuntimeError, match="cannot be run"):
        trial.of(made("wrong", "missing"))
