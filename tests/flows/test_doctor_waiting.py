"""Does `doctor` find a step that waits for a worker that does not run?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from multiagents import WorkflowBuilder, worker
from multiagents.engine import launches
from multiagents.engine.launches import MEND, Launch
from tests.support.command_line import cli
from tests.support.office import Office, open_office


@worker("doctor_waiting.do")
def do(context: Any) -> dict[str, Any]:
    return {}


@pytest.fixture
def office(redis_url: str) -> Iterator[Office]:
    with open_office(redis_url) as found:
        yield found


def waiting(office: Office) -> dict[str, str]:
    """The doctor's finding about waiting steps."""
    told = json.loads(cli("doctor", "--json", url=office.url).out)
    (found,) = [each for each in told["checks"] if each["name"] == "waiting steps"]
    return dict(found)


def test_doctor_names_a_step_whose_function_no_worker_has(office: Office) -> None:
    """The finding comes before the step is parked, also for unpublished workflows."""
    workflow = WorkflowBuilder("doctor-waits").add_step("ship", "doctor_waiting.do").build()
    saga_id = office.start(workflow)
    office.worker_runs("io", functions=("doctor_waiting.do",))
    assert waiting(office)["status"] == "ok"
    office.worker_runs("io", functions=("explain.do",))
    office.start(workflow)
    told = waiting(office)
    assert told["status"] == "warn"
    assert "step 'ship' of saga " in told["message"]
    assert "no running worker has the function 'doctor_waiting.do'" in told["message"]
    assert told["message"].endswith("; 1 more such step")
    assert told["fix"].startswith("start one: ")
    assert saga_id in {each["transaction_id"] for each in office.runtime.call("list")}


def test_no_worker_like_those_that_run_is_advised(office: Office) -> None:
    """Such a worker would lack the function; waiting callers get the same advice."""
    known = Launch("proj", (), ("io",), ("doctor_waiting.do",), office.runtime.clock.now_ms())
    office.runtime.edge.run(launches.remember(known))
    saga_id = office.start(
        WorkflowBuilder("doctor-lacks").add_step("ship", "doctor_waiting.do").build()
    )
    office.worker_runs("io", app="proj")
    reason = office.reason(saga_id, "unknown_function")
    assert reason["commands"] == []
    assert "Workers of the same code run without it" in reason["text"]
    assert waiting(office)["fix"] == MEND
    in_vain = office.runtime.edge.run(office.runtime.host.service.stranded(saga_id))
    assert in_vain.endswith(f"no running worker has the function 'doctor_waiting.do': {MEND}")
