"""Would the simulator notice if the engine broke one of its rules?

A simulator that finds nothing proves nothing.  Each bug of tests/simulation/planted is found from
the seed that its patch names, within the number of histories that it names.
``python -m tests.simulation.planted.bugs`` prints how many a search from seed 0 takes.
"""

from __future__ import annotations

import pytest

from tests.simulation.planted.bugs import MOST, Bug, bugs, search

BUGS = bugs()


def test_there_are_bugs_to_find() -> None:
    """The patches are read, and each says what it breaks."""
    assert len(BUGS) >= 5
    assert all(bug.says and bug.patch and bug.histories <= MOST for bug in BUGS)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Bug) -> None:
    """The patch applies, a law breaks in time, and without it the same history breaks none."""
    found = search(bug, seed=bug.seed, count=bug.histories)
    assert found is not None, f"not found in {bug.histories} histories: {bug.says}"
    print(f"{bug.name}: {found.histories} histories, {found.law}")
    without = Bug("nothing", says="", seed=bug.seed, histories=bug.histories, patch="")
    assert search(without, seed=bug.seed + found.histories - 1, count=1) is None
