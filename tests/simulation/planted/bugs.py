"""Which bugs are planted, and does the simulator find them?

Each ``*.patch`` here breaks one rule of the engine.  It is applied to a copy of the package, and
the simulator runs histories in that copy until a law breaks.  The head of a patch says what it
breaks, and where a search finds it quickly: the first seed, and the number of histories within
which the search has to find it.

    python -m tests.simulation.planted.bugs [NAME ...] [--count 10000] [--seed 0]

searches from the seed on without such help, and prints the number of histories for each.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE = HERE.parents[2] / "multiagents"
MOST = 10_000
"""Histories within which every planted bug has to be found from any seed on."""


class DoesNotApply(AssertionError):
    """The code that a patch changes has changed; write the patch anew."""


@dataclass(frozen=True, slots=True)
class Bug:
    """One patch. ``seed`` and ``histories``: where a search finds it quickly."""

    name: str
    says: str
    seed: int
    histories: int
    patch: str


@dataclass(frozen=True, slots=True)
class Found:
    """Which law broke, and after how many histories."""

    histories: int
    law: str


def bugs() -> list[Bug]:
    """All planted bugs, by name."""
    return [_read(path) for path in sorted(HERE.glob("*.patch"))]


def _read(path: Path) -> Bug:
    says, _, rest = path.read_text("utf-8").partition("\n\nSearch: ")
    found = re.match(r"seed (\d+), (\d+) histories\n", rest)
    if not found:
        raise DoesNotApply(f"{path.name} lacks its line 'Search: seed N, M histories'")
    seed, histories = map(int, found.groups())
    return Bug(path.stem, says, seed, histories, rest[found.end() :])


@contextmanager
def planted(bug: Bug) -> Iterator[Path]:
    """A folder with a copy of the package that has the bug.  Raises DoesNotApply."""
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        copy = Path(folder) / PACKAGE.name
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        _apply(bug, Path(folder))
        yield Path(folder)


def _apply(bug: Bug, folder: Path) -> None:
    """Replace each hunk's text, which must occur once in its file; line numbers may be off."""
    for part in re.split(r"^--- ", bug.patch, flags=re.M)[1:]:
        name = re.match(r".*\n\+\+\+ b/(\S+).*\n", part)
        if not name:
            raise DoesNotApply(f"{bug.name}.patch: no '+++ b/FILE' after '--- '")
        path = folder / name[1]
        text = path.read_text("utf-8")
        for hunk in re.split(r"^@@.*@@.*\n", part, flags=re.M)[1:]:
            lines = hunk.splitlines(keepends=True)
            old = "".join(line[1:] for line in lines if line[0] in " -")
            new = "".join(line[1:] for line in lines if line[0] in " +")
            if text.count(old) != 1:
                where = f"{bug.name}.patch: {name[1]} has {text.count(old)} places like this one"
                raise DoesNotApply(f"{where}, expected one:\n{old}")
            text = text.replace(old, new)
        path.write_text(text, "utf-8")


def search(bug: Bug, *, seed: int, count: int) -> Found | None:
    """Run histories with the bug until a law breaks; None if all are clean."""
    command = [sys.executable, "-m", "multiagents.lab.simulator", "--quiet"]
    with planted(bug) as folder:
        ended = subprocess.run(
            [*command, "--seed", str(seed), "--count", str(count)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            check=False,
        )
    if ended.returncode == 0:
        return None
    broken = re.search(r"LawBroken: seed (\d+): (.*)", ended.stderr)
    if not broken:
        raise RuntimeError(f"{bug.name}: the simulator failed itself:\n{ended.stderr[-4000:]}")
    return Found(int(broken[1]) - seed + 1, broken[2])


def main(arguments: Sequence[str] | None = None) -> int:
    """Search from scratch; 1 if some bug was not found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.planted.bugs")
    parser.add_argument("names", nargs="*", help="of patches, without .patch; all if none is given")
    parser.add_argument("--count", type=int, default=MOST, help="histories at most")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    given = parser.parse_args(arguments)
    missed = 0
    for bug in bugs():
        if given.names and bug.name not in given.names:
            continue
        found = search(bug, seed=given.seed, count=given.count)
        missed += found is None
        said = f"{found.histories:>6} {found.law[:100]}" if found else f"not in {given.count}"
        print(f"{bug.name:<32}{said}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
