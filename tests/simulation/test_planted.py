"""Would the simulator notice if the engine broke one of its rules?

A simulator that finds nothing proves nothing.  Each bug of tests/simulation/planted is found from
the seed that its patch names, within the number of histories that it names.
``python -m tests.simulation.planted.bugs`` prints how many a search from seed 0 takes.  A patch
names a seed a few histories before the one that finds it, which saves the test minutes; if a change
of the engine moves it, the number of histories still holds.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from multiagents.lab.simulator.store import Servers, own_servers
from multiagents.lab.simulator.survey import simulate
from tests.simulation.planted.bugs import MOST, Bug, bugs, search

pytestmark = pytest.mark.single

BUGS = bugs()


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with own_servers() as found:
        yield found


def test_there_are_bugs_to_find() -> None:
    """Each patch can be read and says what it breaks."""
    assert len(BUGS) >= 5
    assert all(bug.says and bug.patch and bug.histories <= MOST for bug in BUGS)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Bug, servers: Servers) -> None:
    """With the patch a law breaks in time; without it the same history breaks none."""
    found = search(bug, seed=bug.seed, count=bug.histories)
    assert found is not None, f"not found in {bug.histories} histories: {bug.says}"
    print(f"{bug.name}: {found.histories} histories, {found.law}")
    assert simulate([bug.seed + found.histories - 1], servers).histories == 1
