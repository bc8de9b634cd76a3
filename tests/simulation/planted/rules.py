"""Does the test that tests/rules.toml names for a rule fail when the rule is broken?

Each `Mutant` breaks a rule in one place: it replaces a text that occurs once in one file.

    python -m tests.simulation.planted.rules [E1 ...]

makes a copy of the project with each in turn, runs its test there, and reports the survivors.  A
test that also fails without the mutant proves nothing, so each first runs on the whole code.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from tests.simulation.planted.mutant import Mutant
from tests.simulation.planted.mutants_e1_e5 import E1_E5
from tests.simulation.planted.mutants_e6_e9 import E6_E9
from tests.simulation.planted.mutants_e10_e14 import E10_E14
from tests.simulation.planted.mutants_e15_e20 import E15_E20
from tests.simulation.planted.mutants_e21 import E21
from tests.support.processes import PYTEST
from tests.support.rule_map import rules

ROOT = Path(__file__).resolve().parents[3]
COPIED = ("multiagents", "tests", "bench", "docs", "pyproject.toml", "README.md")
LEFT_OUT = ("__pycache__", ".venvs", "results", "*.patch")
TEST_S = 180
"""A test that takes longer hangs."""
FOUND = "found"
MUTANTS = (*E1_E5, *E6_E9, *E10_E14, *E15_E20, *E21)


class Rotten(AssertionError):
    """The text that a mutant replaces has changed; write the mutant anew."""


def changed(mutant: Mutant, root: Path = ROOT) -> str:
    """The text of its file with the rule broken.  Raises Rotten."""
    text = (root / mutant.file).read_text("utf-8")
    if text.count(mutant.old) != 1:
        places = f"{mutant.file} has {text.count(mutant.old)} places like this one, expected one"
        raise Rotten(f"{mutant.rule}: {places}:\n{mutant.old}")
    return text.replace(mutant.old, mutant.new)


@contextmanager
def copy() -> Iterator[Path]:
    """A copy of the project, without the parts that its tests do not need."""
    with tempfile.TemporaryDirectory(prefix="rules-") as folder:
        for name in COPIED:
            source, target = ROOT / name, Path(folder) / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns(*LEFT_OUT))
            else:
                shutil.copy(source, target)
        yield Path(folder)


class Ended(StrEnum):
    """How a run of a test ended."""

    PASSED = "passed"
    FAILED = "failed"
    TIMED_OUT = "timed out"


class Trial:
    """Tries mutants in one copy; each test first has to pass on the whole code."""

    def __init__(self, root: Path, *, timeout_s: float = TEST_S) -> None:
        self.timeout_s = timeout_s
        self._root = root
        self._whole: dict[str, Ended] = {}

    def of(self, mutant: Mutant) -> str:
        """The result for a mutant; it begins with "found" if its test noticed it.

        Raises Rotten, and RuntimeError if the test cannot be run or fails on the whole code too.
        """
        broken = changed(mutant, self._root)
        test = mutant.test
        if test not in self._whole:
            self._whole[test] = ended(test, self._root, timeout_s=self.timeout_s)
        if self._whole[test] is not Ended.PASSED:
            raise RuntimeError(f"its test {self._whole[test]} on the whole code")
        path = self._root / mutant.file
        before = path.read_text("utf-8")
        path.write_text(broken, "utf-8")
        try:
            how = ended(test, self._root, timeout_s=self.timeout_s)
        finally:
            path.write_text(before, "utf-8")
        if how is Ended.TIMED_OUT:
            return f"{FOUND}, for it did not end within {self.timeout_s:g} s"
        return "SURVIVED" if how is Ended.PASSED else FOUND


def ended(test: str, root: Path, *, timeout_s: float) -> Ended:
    """Run one test in a copy.  Raises RuntimeError if it could not be run at all."""
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(
            [*PYTEST, "-x", test],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return Ended.TIMED_OUT
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # together with its servers and workers
        if code not in (0, 1):
            said.seek(0)
            raise RuntimeError(f"{test} cannot be run:\n{said.read()[-4000:]}")
    return Ended.PASSED if code == 0 else Ended.FAILED


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the mutants of these rules, or all; 1 if one survived, has rotted or was not tried."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.planted.rules")
    parser.add_argument("rules", nargs="*", help="such as E1; all if none is given")
    given = parser.parse_args(arguments)
    titles = {rule.number: rule.title for rule in rules()}
    if unknown := sorted(set(given.rules) - titles.keys()):
        parser.error(f"no such rule: {', '.join(map(repr, unknown))}; known: {', '.join(titles)}")
    bad = 0
    with copy() as root:
        trial = Trial(root)
        for mutant in MUTANTS:
            if given.rules and mutant.rule not in given.rules:
                continue
            try:
                said = trial.of(mutant)
            except (Rotten, RuntimeError) as error:
                said = f"not tried: {error}"
            bad += not said.startswith(FOUND)
            print(f"{mutant.rule:<4}{said:<10}{mutant.test.rpartition('::')[2]}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
