"""Does a step that was tried again keep its last error in sight?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from multiagents import WorkflowBuilder, worker
from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.entries import TimerDue
from multiagents.core.states import Kind
from multiagents.saga.commands import retry_timer
from multiagents.testing.lab import SagaLab
from tests.support.command_line import cli
from tests.support.eager_server import lab_on
from tests.support.office import Office

REFUSED = {"type": "OSError", "message": "no stock"}


@worker("last_errors.book")
def book(context: Any) -> dict[str, Any]:
    return {}


@worker("last_errors.refuse")
def refuse(context: Any) -> dict[str, Any]:
    raise RuntimeError("closed")


FLOW = (
    WorkflowBuilder("last-errors")
    .add_step("book", "last_errors.book", compensation="last_errors.book")
    .add_step("pay", "last_errors.book")
    .add_step("ship", "last_errors.refuse", retry=1)
    .build()
)


@pytest.fixture
def lab(redis_url: str) -> Iterator[SagaLab]:
    with lab_on(redis_url) as found:
        yield found


def test_a_step_that_succeeded_after_a_failure_names_the_error(
    lab: SagaLab, redis_url: str
) -> None:
    """`get`, `show` and `show --json` have it; a step that never failed has none."""
    lab.fail("book", error=OSError("no stock"))
    lab.fail("book", error=OSError("no stock"), undo=True)
    saga_id = lab.start(FLOW, {})
    steps = lab.get(saga_id)["steps"]
    book_, undo = steps["book"], steps["book"]["compensation"]
    for work in (book_, undo):
        assert (work["state"], work["attempts"], work["error"]) == ("succeeded", 2, None)
        assert {name: work["last_error"][name] for name in REFUSED} == REFUSED
    assert (steps["pay"]["last_error"], steps["pay"]["compensation"]) == (None, None)
    assert steps["ship"]["last_error"] == steps["ship"]["error"]
    shown = cli("show", saga_id, url=redis_url).out
    assert "last error: OSError: no stock" in shown
    assert "last error of the undo: OSError: no stock" in shown
    assert shown.count("closed") == 2  # the saga's error and the step's, which is not said twice
    assert '"last_error": {"type": "OSError"' in cli("show", saga_id, "--json", url=redis_url).out


def test_a_running_attempt_shows_how_the_one_before_was_lost(office: Office) -> None:
    """The state forgets an error as soon as the next attempt is claimed."""
    saga_id = office.start(FLOW)
    office.lose(office.claim(saga_id, "book"))
    due = TimerDue(office.runtime.clock.now_ms(), retry_timer(AttemptRef(Kind.RUN, "book", 1)))
    office.runtime.edge.run(office.runtime.host.coordinator.append(saga_id, due))
    office.claim(saga_id, "book", attempt=2)
    step = office.runtime.call("get", saga_id)["steps"]["book"]
    assert (step["state"], step["error"], step["last_error"]["type"]) == (
        "running",
        None,
        "LeaseLost",
    )
    assert office.runtime.call("pause", saga_id)["steps"]["book"] == step
    (row,) = office.runtime.call("list")
    assert "last_error" not in row["steps"]["book"]
