"""Does `explain` say what sweeps retry without success, and why?"""

from __future__ import annotations

from typing import Any

import redis

from multiagents import WorkflowBuilder, worker
from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.fields import outbox_field
from multiagents.core.states import Kind
from multiagents.storage import failures
from multiagents.storage.keys import Shard, due_outbox
from multiagents.storage.sagas import Guard
from tests.support.office import Office


@worker("explain.refused", queue="explain-refused")
def do(context: Any) -> dict[str, Any]:
    return {}


def test_a_queue_that_the_server_refuses_is_named_with_the_reason(office: Office) -> None:
    """Without it an operator would only read that the message is not sent yet."""
    with redis.Redis.from_url(office.url, decode_responses=True) as client:
        client.hset("explain-refused", "a team's", "own")
        saga_id = office.start(
            WorkflowBuilder("explain-refused").add_step("a", "explain.refused").build()
        )
        member = due_outbox(saga_id, outbox_field(AttemptRef(Kind.RUN, "a", 1)))
        token = f"{client.zscore(Shard().due, member):.0f}"
        now_ms = office.runtime.clock.now_ms()
        why = "NotTaken: 'explain-refused' cannot be written (WRONGTYPE)"
        failed = failures.put_off(Shard(), Guard(member, token), now_ms=now_ms, why=why)
        assert office.runtime.edge.execute(failed) == 1
    reason = office.reason(saga_id, "failing")
    assert (reason["failures"], reason["error"]) == (1, why)
    assert why in reason["text"]
    assert "multiagents doctor" in reason["commands"]


def test_what_has_been_done_since_is_not_told(office: Office) -> None:
    """Old counts of failures stay for some minutes, but no longer show."""
    saga_id = office.start(
        WorkflowBuilder("explain-taken").add_step("a", "explain.refused").build()
    )
    with redis.Redis.from_url(office.url) as client:
        member = due_outbox(saga_id, outbox_field(AttemptRef(Kind.RUN, "a", 1)))
        client.hset(Shard().stuck, member, f"3|{office.runtime.clock.now_ms()}|it was refused")
    office.reason(saga_id, "failing")
    office.claim(saga_id, "a")
    codes = [each["code"] for each in office.runtime.call("explain", saga_id)["reasons"]]
    assert "failing" not in codes
