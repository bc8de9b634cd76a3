"""Does a test find nothing that the deliveries and workers of earlier tests left in the process?"""

from __future__ import annotations

from typing import Any

import pytest

from multiagents import worker
from multiagents.core.clock import SystemClock
from multiagents.hosting import fence, plain_reports, step_task
from multiagents.hosting.step_request import channel, sight
from multiagents.worker_sdk import breaker
from multiagents.worker_sdk.registry import find


@pytest.mark.parametrize("turn", [1, 2])
def test_a_test_finds_no_delivery_of_another(turn: int) -> None:
    """The second turn finds the defaults, although the first one has changed all of them."""
    slot, fenced, returned = step_task.slot, fence.fenced, plain_reports._returned
    assert (slot.count, slot.ends_at, slot.headers) == (0, 0.0, None)
    assert (fenced.last, returned.delivery) == (("", []), "")
    slot.count, slot.ends_at, slot.headers = turn, 1.0, {"tenant": "a"}
    fenced.last = ("task", [])
    returned.delivery = "delivery"


@pytest.mark.parametrize("turn", [1, 2])
def test_a_test_finds_no_embedded_worker_of_another(turn: int) -> None:
    """The second turn finds channel, view and breakers as they were before the first one."""
    assert (channel._ends, sight._look) == (None, None)
    assert breaker._connection is None or breaker._connection.run_call is not print
    channel.open(print)
    sight.open(dict)
    breaker.connect(print, SystemClock())


@pytest.mark.parametrize("turn", [1, 2])
def test_a_test_finds_no_worker_function_of_another(turn: int) -> None:
    """The name is free in the second turn, although the first one has registered a function."""
    assert find("process_state.work") is None

    @worker("process_state.work")
    def work(context: dict[str, Any]) -> dict[str, Any]:
        return {}

    assert find("process_state.work") is work
