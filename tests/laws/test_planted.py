"""Would the simulator notice if the engine broke one of its rules?

A simulator that finds nothing proves nothing.  Each bug of tests/planted is found from the seed
that its patch names, within the number of histories that it names; how many a search from seed 0
takes is printed by ``python -m tests.planted.bugs``.
"""

from __future__ import annotations

import pytest

from tests.planted.bugs import MOST, Bug, bugs, search

BUGS = bugs()


def test_there_are_bugs_to_find() -> None:
    """The patches are read, and each says what it breaks."""
    assert len(BUGS) >= 5
    assert all(bug.says and bug.patch and bug.histories <= MOST for bug in BUGS)


def test_without_a_bug_the_same_histories_are_clean() -> None:
    """What is found is the bug: a copy without one breaks no law."""
    nothing = Bug("nothing", says="", seed=200, histories=100, patch="")
    assert search(nothing, seed=nothing.seed, count=nothing.histories) is None


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Bug) -> None:
    """The patch applies to the package as it is, and a law breaks in time."""
    found = search(bug, seed=bug.seed, count=bug.histories)
    assert found is not None, f"not found in {bug.histories} histories: {bug.says}"
    print(f"{bug.name}: {found.histories} histories, {found.law}")
