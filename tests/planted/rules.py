"""Does the test that docs/rules.md names for a rule fail when the rule is broken?

Each `Mutant` breaks a rule in one place: a piece of text of one file, which must stand there just
once, is replaced.

    python -m tests.planted.rules [E1 ...]

makes a copy of the project with each in turn, runs its test there, and says which survived.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.planted.mutant import Mutant
from tests.planted.mutants_e1_e9 import E1_E9
from tests.planted.mutants_e10_e20 import E10_E20

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("multiagents", "tests", "bench", "docs", "pyproject.toml", "README.md")
LEFT_OUT = ("__pycache__", ".venvs", "results", "*.patch")
TEST_S = 180
MUTANTS = (*E1_E9, *E10_E20)


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
    """The project without what its tests do not need."""
    with tempfile.TemporaryDirectory(prefix="rules-") as folder:
        for name in COPIED:
            source, target = ROOT / name, Path(folder) / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns(*LEFT_OUT))
            else:
                shutil.copy(source, target)
        yield Path(folder)


def survives(mutant: Mutant, root: Path) -> bool:
    """Whether its test passes although the rule is broken."""
    path = root / mutant.file
    before = path.read_text("utf-8")
    path.write_text(changed(mutant, root), "utf-8")
    try:
        return passes(mutant.test, root)
    finally:
        path.write_text(before, "utf-8")


def passes(test: str, root: Path) -> bool:
    """Run one test in a copy.  Raises RuntimeError if it could not be run at all."""
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", test],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=TEST_S,
        check=False,
    )
    if ended.returncode not in (0, 1):
        raise RuntimeError(f"{test} cannot be run:\n{ended.stdout[-3000:]}{ended.stderr[-1000:]}")
    return ended.returncode == 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the mutants of these rules, or all; 1 if one survived or has rotted."""
    parser = argparse.ArgumentParser(prog="python -m tests.planted.rules")
    parser.add_argument("rules", nargs="*", help="such as E1; all if none is given")
    given = parser.parse_args(arguments)
    bad = 0
    with copy() as root:
        for mutant in MUTANTS:
            if given.rules and mutant.rule not in given.rules:
                continue
            try:
                said = "SURVIVED" if survives(mutant, root) else "found"
            except (Rotten, RuntimeError) as error:
                said = f"not tried: {error}"
            bad += said != "found"
            print(f"{mutant.rule:<4}{said:<10}{mutant.test.rpartition('::')[2]}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
