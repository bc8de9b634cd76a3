"""Does an error keep its line in the user's code wherever it is shown?"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from multiagents import SagaFailed, WorkflowBuilder, worker
from multiagents.core.entries import (
    Claimed,
    Failed,
    Failure,
    Lost,
    Started,
    Succeeded,
    decode,
    encode,
)
from multiagents.core.places import is_users, own_line, shown_path, standing_at, suspended_at
from multiagents.core.ports import Assignment
from multiagents.core.states import Kind, StepState
from multiagents.operations.event_words import happened
from multiagents.operations.projection import replay
from multiagents.saga.state import StepRun, Work, decode_step, encode_step
from multiagents.testing.lab import SagaLab
from multiagents.worker_sdk.attempt import perform, verdict_of
from multiagents.worker_sdk.context import Context
from multiagents.worker_sdk.execute import execute
from multiagents.worker_sdk.registry import find
from tests.support.command_line import cli, on_terminal
from tests.support.eager_server import lab_on

HERE = shown_path(__file__)


def line_of(text: str) -> int:
    """The first line of this file that has a text."""
    lines = Path(__file__).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


@worker("places.book")
def book(context: Any) -> dict[str, Any]:
    return {}


@worker("places.unbook")
def unbook(context: Any) -> dict[str, Any]:
    return {"left": context["bookd"]}


@worker("places.pay")
def pay(context: Any) -> dict[str, Any]:
    return {"paid": json.loads(context["price"])}


@worker("places.linger")
async def linger(context: Any) -> dict[str, Any]:
    await asyncio.gather(asyncio.sleep(60))
    return {}


@worker("places.cut_short")
def cut_short(context: Any) -> dict[str, Any]:
    raise SoftTimeLimitExceeded


ORDER = (
    WorkflowBuilder("places-order")
    .add_step("book", "places.book", compensation="places.unbook", compensation_retry=1)
    .add_step("pay", "places.pay", compensation="places.book")
    .build()
)
PAY = f"{HERE}:{line_of('json.loads(context[')}"
UNBOOK = f"{HERE}:{line_of('context[' + chr(34) + 'bookd')}"


@pytest.fixture
def lab(redis_url: str) -> Iterator[SagaLab]:
    with lab_on(redis_url) as found:
        yield found


def test_every_face_shows_the_line_that_raised(lab: SagaLab, redis_url: str) -> None:
    """`show`, `history`, `explain`, dead letters and the caller's error have it, for steps and
    undos.
    """
    saga_id = lab.start(ORDER, {"price": "{"})
    saga = lab.get(saga_id)
    assert saga["error"]["place"] == saga["steps"]["pay"]["error"]["place"] == PAY
    assert saga["steps"]["book"]["compensation"]["error"]["place"] == UNBOOK
    for words in (("show",), ("history",)):
        shown = cli(*words, saga_id, url=redis_url).out
        assert f"({PAY})" in shown
        assert f"KeyError: 'bookd' ({UNBOOK})" in shown
    told = cli("explain", saga_id, url=redis_url).out
    assert f"({PAY})" in told
    assert f"({UNBOOK})" in told
    assert f"({UNBOOK})" in cli("dead-letters", "show", saga_id, url=redis_url).out
    assert HERE in on_terminal("list", url=redis_url).out.replace("\n", "").replace(" ", "")
    failed = SagaFailed(saga_id, "failed", "pay", saga["error"])
    assert f"({PAY})" in str(failed)
    assert SagaFailed.from_dict(failed.to_dict()).error["place"] == PAY


def test_an_earlier_version_reads_an_error_with_a_place() -> None:
    """An earlier version ignores the field after the two that it knows."""
    error = Failure("KeyError", "'x'", "pay.py:35")
    entry = Failed(5, Kind.RUN, "pay", 1, "n", error)
    row = json.loads(encode(entry))
    assert (row[6], row[-1]) == (["KeyError", "'x'"], "pay.py:35")
    read = decode(encode(entry))
    assert isinstance(read, Failed)
    assert (read, read.error.place) == (entry, "pay.py:35")
    plain = Failed(5, Kind.RUN, "pay", 1, "n", Failure("KeyError", "'x'"))
    assert len(json.loads(encode(plain))) == 7
    step = StepRun(Work(StepState.FAILED, 1, 1, "n", error=error))
    stored = json.loads(encode_step(step, 0))
    assert stored[1][7] == ["KeyError", "'x'"]
    again = decode_step(stored, 0).run.error
    assert again is not None
    assert again.place == "pay.py:35"


def test_only_the_users_own_line_counts() -> None:
    """The innermost user line counts; an error without one has no place."""
    with pytest.raises(ValueError, match="enclosed") as raised:
        pay(Context({"price": "{"}))
    assert own_line(raised.value) == PAY
    assert own_line(ValueError("never raised")) == ""
    assert verdict_of(ValueError("x"), Kind.RUN).failure.to_dict() == {
        "type": "ValueError",
        "message": "x",
    }


def test_a_step_timeout_names_the_line_at_which_it_stood() -> None:
    """For async functions that is the await, for plain ones the line that Celery's limit hit."""
    slow = find("places.linger")
    with pytest.raises(TimeoutError) as raised:
        execute(slow, Context({}), token="t", timeout_s=0.05)
    place = f"{HERE}:{line_of('await asyncio.gather')}"
    assert verdict_of(raised.value, Kind.RUN).failure.place == place
    held = Assignment("s", "w", "v", Kind.RUN, "a", 1, "n", "places.cut_short", "io", "d")
    with pytest.raises(TimeoutError) as raised:
        perform(find("places.cut_short"), held, _NoLeases(), limit=1000)
    place = f"{HERE}:{line_of('raise SoftTimeLimitExceeded')}"
    assert verdict_of(raised.value, Kind.RUN).failure.place == place


class _NoLeases:
    def note(self, held: Assignment, field: str, value: Any) -> bool:
        return True


def installed(path: str, text: str, **names: Any) -> dict[str, Any]:
    """The names that a module defines whose file lies among the installed packages."""
    file = os.path.join(sysconfig.get_path("purelib"), *path.split("/"))
    defined = dict(names)
    exec(compile(text, file, "exec"), defined)
    return defined


def test_an_installed_function_counts_as_the_users_code(lab: SagaLab, redis_url: str) -> None:
    """An image often holds the user's package in site-packages; its line is still the place."""
    post = installed("httplike/api.py", "def post():\n    raise OSError('refused')\n")["post"]
    code = "def charge(context):\n    return pay()\ndef pay():\n    return post()\n"
    worker("places.charge")(installed("acme/pay.py", code, post=post)["charge"])
    once = {"max_attempts": 1}
    flow = WorkflowBuilder("places-installed").add_step("pay", "places.charge", retry=once).build()
    saga_id = lab.start(flow, {})
    place = lab.get(saga_id)["error"]["place"]
    assert place.endswith(os.path.join("acme", "pay.py:4"))
    assert f"({place})" in cli("show", saga_id, url=redis_url).out


def test_a_stack_of_installed_code_names_the_package_that_the_engine_called() -> None:
    """Not the package that this one calls in turn, and never an installed command."""
    found: list[str] = []

    def look() -> None:
        found.append(standing_at(sys._getframe().f_back))

    post = installed("httplike/api.py", "def post():\n    look()\n", look=look)["post"]
    acme = installed("acme/pay.py", "def charge():\n    post()\n", post=post)
    thread = threading.Thread(target=acme["charge"])
    thread.start()
    thread.join()
    assert found[0].endswith(os.path.join("acme", "pay.py:2"))
    assert not is_users(os.path.join(sysconfig.get_path("scripts"), "celery"))


def test_a_coroutine_that_has_not_begun_stands_at_its_first_line() -> None:
    """An ended coroutine has no line."""
    coroutine = linger(Context({}))
    assert suspended_at(coroutine).startswith(f"{HERE}:")
    coroutine.close()
    assert suspended_at(coroutine) == ""


def test_a_lost_attempt_names_its_worker_and_what_happened() -> None:
    """The history names the claiming worker, as for every end of an attempt."""
    run, undo = Kind.RUN, Kind.UNDO
    entries = [
        Started(0),
        Claimed(10, run, "book", 1, "n1", "a@vm"),
        Succeeded(20, run, "book", 1, "n1"),
        Claimed(30, run, "pay", 1, "n2", "b@vm"),
        Lost(15_030, run, "pay", 1, "n2"),
    ]
    events = replay("s", ORDER, entries, {})
    told = {each["type"]: each for each in events}
    assert told["step_succeeded"]["worker"] == "a@vm"
    assert (told["step_lost"]["worker"], told["step_lost"]["data"]["error"]["type"]) == (
        "b@vm",
        "LeaseLost",
    )
    assert happened(told["step_lost"]).rest == (
        "LeaseLost: the worker fell silent: its lease ran out"
    )
    late = replay("s", ORDER, [*entries, Lost(15_031, undo, "gone", 1, "n9")], {})
    assert late[-1]["worker"] is None
