"""Does docs/rules.md name a test for every rule of the engine, and can each be broken to see it?"""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.planted.mutant import Mutant
from tests.planted.rules import MUTANTS, changed
from tests.processes import ROOT

PAGE = (ROOT / "docs" / "rules.md").read_text("utf-8")
ROWS = dict(re.findall(r"^\| (E\d+) \| .+ \| (.+) \|$", PAGE, re.MULTILINE))
ABSENT = "not in this version"
TESTS = [(rule, test) for rule, tests in ROWS.items() for test in re.findall(r"`(\S+)`", tests)]


@cache
def functions(file: str) -> frozenset[str]:
    """The functions of a module."""
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_every_rule_names_its_tests() -> None:
    """E1 to E20, in order; only what does not exist has none."""
    assert list(ROWS) == [f"E{number}" for number in range(1, 21)]
    without = [rule for rule, tests in ROWS.items() if "`" not in tests]
    assert without == [rule for rule, tests in ROWS.items() if tests == ABSENT] == ["E18"]


@pytest.mark.parametrize(("rule", "test"), TESTS)
def test_a_named_test_is_there(rule: str, test: str) -> None:
    """In the file that the page says."""
    file, _, name = test.partition("::")
    assert name in functions(file), rule


def test_every_rule_is_broken_once_at_least() -> None:
    """By a mutant whose test the page names for that rule."""
    assert {mutant.rule for mutant in MUTANTS} == {rule for rule, _ in TESTS}
    assert {(mutant.rule, mutant.test) for mutant in MUTANTS} - set(TESTS) == set()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.rule}-{m.test.rpartition('_')[2]}")
def test_a_mutant_breaks_the_code_as_it_is(mutant: Mutant) -> None:
    """What it replaces stands there, once; ``python -m tests.planted.rules`` runs its test."""
    assert changed(mutant) != (ROOT / mutant.file).read_text("utf-8")
