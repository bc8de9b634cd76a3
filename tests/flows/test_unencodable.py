"""What happens to text that UTF-8 cannot encode, such as names from `os.listdir`?"""

from __future__ import annotations

import logging
from typing import Any

import pytest

from multiagents import (
    InvalidInput,
    NonRetryableError,
    SagaFailed,
    WorkflowBuilder,
    app,
    sagas,
    start_saga,
    task,
    worker,
)
from multiagents.core.entries import Failed, Failure, decode, encode
from multiagents.core.states import Kind
from tests.support import letters

NAME = b"caf\xe9.csv".decode(errors="surrogateescape")
SHOWN = "caf\\udce9.csv"


def read_file(context: Any) -> dict[str, Any]:
    raise NonRetryableError(f"cannot parse {NAME}", clean=True)


read = worker("une.read", retry={"max_attempts": 3, "backoff_s": 0.1})(read_file)
app.task(read_file, name="une.plain", shared=False)


@worker("une.undo")
def undo(context: Any) -> dict[str, Any]:
    return {}


@worker("une.note")
def note(context: Any) -> dict[str, Any]:
    context.heartbeat(0.5, f"reads {NAME}")
    if context.get("keep"):
        context.checkpoint({"file": NAME})
    return {"file": NAME}


def test_an_error_is_stored_whatever_its_text_holds() -> None:
    """Otherwise report and error would get lost."""
    failed = Failed(1, Kind.RUN, "a", 1, "f" * 16, Failure(f"No{NAME}", f"cannot parse {NAME}"))
    assert decode(encode(failed)) == failed
    assert failed.error == Failure(f"No{SHOWN}", f"cannot parse {SHOWN}")


@pytest.mark.parametrize("target", ["une.read", task("une.plain")], ids=["worker", "plain task"])
def test_what_was_clean_and_final_stays_so(saga_lab, caplog, target):
    """There is one attempt and no undo, and the waiter gets the true error."""
    caplog.set_level(logging.CRITICAL, logger="celery.app.trace")  # xdist cannot encode its text
    flow = WorkflowBuilder("une").add_step("a", target, compensation="une.undo").build()
    result = start_saga.delay(flow, {})
    saga = sagas.get(result.id)
    assert (saga["state"], saga["steps"]["a"]["attempts"]) == ("failed", 1)
    assert saga["error"]["message"] == f"cannot parse {SHOWN}"
    with pytest.raises(SagaFailed, match="cannot parse caf"):
        result.get()


def test_a_note_of_progress_is_stored_with_replacements(saga_lab):
    """A note is only shown; the result itself is refused."""
    saga = sagas.get(saga_lab.start(WorkflowBuilder("une").add_step("a", note).build()))
    assert saga["steps"]["a"]["progress"]["note"] == f"reads {SHOWN}"
    assert saga["error"]["type"] == "InvalidResult"
    assert "key 'file' has half of a surrogate pair" in saga["error"]["message"]


def test_a_checkpoint_that_cannot_be_stored_is_refused_where_it_is_kept(saga_lab):
    """The next attempt could not read it."""
    flow = WorkflowBuilder("une").add_step("a", note, retry=1).build()
    saga = sagas.get(saga_lab.start(flow, {"keep": True}))
    assert "checkpoint of 'a': key 'file' has half of" in saga["error"]["message"]


@pytest.mark.parametrize("option", ["correlation_id", "idempotency_key", "tags"])
def test_what_names_a_saga_is_refused_before_it_starts(saga_lab, option):
    """Each of its steps would fail to read it."""
    with pytest.raises(InvalidInput, match=f"^{option} (cannot be stored|is .caf)"):
        saga_lab.start(letters.pivoted(), {}, **{option: [NAME] if option == "tags" else NAME})
    assert sagas.list() == []


def test_a_reason_is_stored_with_replacements(saga_lab):
    """A terminal passes on any typed bytes."""
    saga_id = letters.park_step(saga_lab)
    sagas.skip(saga_id, by=f"ada {NAME}", reason=f"lost {NAME}")
    asked = [event["data"] for event in sagas.history(saga_id) if event["type"] == "asked"]
    assert (asked[0]["by"], asked[0]["reason"]) == (f"ada {SHOWN}", f"lost {SHOWN}")
