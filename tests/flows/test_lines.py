"""Does each event of a saga give one line, whatever happens?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from multiagents.cli.saga_lines import Line, lines_of
from multiagents.core.states import ENDED
from multiagents.engine.composition import compose
from multiagents.engine.coordinator import Coordinator
from multiagents.lab.simulator.faults import NO_FAULTS
from multiagents.lab.simulator.store import Servers, own_servers
from multiagents.lab.simulator.survey import simulate


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with own_servers() as found:
        yield found


ENDS = {*map(str, ENDED)}


def gives_reason(line: Line) -> bool:
    """Whether a line has a reason for an end other than completed."""
    failed = line.word.startswith(("failed", "lost", "no worker", "compensating"))
    return line.word.endswith(" asked") or (failed and ": " in line.rest)


class Told:
    """The lines of all processes of a system."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def coordinator(self, *args: Any, **kwargs: Any) -> Coordinator:
        """A watched coordinator."""
        made = compose(*args, **kwargs)
        made.watchers.append(lambda move: self.lines.extend(lines_of(move)))
        return made


def test_a_line_can_be_made_of_everything_that_happens(servers: Servers) -> None:
    """Under all faults each event is one line, and each kind has its word."""
    told = Told()
    simulate(range(7000, 7040), servers, make_coordinator=told.coordinator)
    assert not [line for line in told.lines if "\n" in line.text() or "\x1b" in line.text()]
    words = {line.word for line in told.lines}
    assert {"succeeded", "failed", "lost", "undone", "pause asked", "retry asked"} <= words
    assert {"completed", "compensating", "compensated", "paused", "resumed"} <= words


def test_without_faults_each_end_is_told_once_and_last_with_a_reason(servers: Servers) -> None:
    """Several processes commit; a line with the reason precedes a bad end."""
    for seed in range(7100, 7120):
        told = Told()
        simulate(
            range(seed, seed + 1), servers, faults=NO_FAULTS, make_coordinator=told.coordinator
        )
        assert told.lines
        for saga_id in {line.saga_id for line in told.lines}:
            own = [line for line in told.lines if line.saga_id == saga_id]
            states = [line.word for line in own if not line.step and "asked" not in line.word]
            assert [word for word in states if word != "callback refused"][-1] in {*ENDS, "paused"}
            for place, line in enumerate(own):
                if not line.step and line.word in ENDS - {"completed"}:
                    assert any(map(gives_reason, own[: place + 1])), [each.text() for each in own]
            done = [(line.word, line.step, line.rest) for line in own if line.word == "undone"]
            assert len(done) == len(set(done))
