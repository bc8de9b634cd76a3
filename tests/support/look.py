"""Which sagas do the tests of lists and single sagas read?"""

from __future__ import annotations

from typing import Any

from multiagents import WorkflowBuilder, worker
from tests.support.command_line import Done
from tests.support.office import Office

WIDTH = 80
SLOWLY = {"max_attempts": 2, "backoff_s": 60, "jitter": False}
ORDER = (
    WorkflowBuilder("look-order")
    .add_step("reserve", "look.do", compensation="look.do")
    .add_step("charge", "look.do", compensation="look.do", retry=SLOWLY)
    .build()
)


@worker("look.do")
def do(context: Any) -> dict[str, Any]:
    return {}


def start(office: Office, given: dict[str, Any] | None = None, **options: Any) -> str:
    """A saga that starts in its own millisecond, so that the order is known."""
    saga_id: str = office.runtime.call("start", ORDER, given or {}, **options)
    at_ms = office.runtime.clock.now_ms()
    while office.runtime.clock.now_ms() == at_ms:
        pass
    return saga_id


def undone(office: Office, saga_id: str) -> None:
    """Its first step succeeded, its second failed finally, and the undo has begun."""
    office.succeed(saga_id, "reserve")
    office.fail(office.claim(saga_id, "charge"))


def lines_of(done: Done) -> list[str]:
    assert done.code == 0, done.err
    assert [line for line in done.out.splitlines() if len(line) > WIDTH] == []
    return done.out.splitlines()
