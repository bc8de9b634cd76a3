"""Do names of attempts lead back to them, and do all values about one agree?"""

from __future__ import annotations

import pytest

from multiagents.core.attempt_ref import AttemptRef, OfAttempt
from multiagents.core.entries import Claimed, Failed, Failure, Lost, Succeeded, Withdrawn
from multiagents.core.fields import outbox_field, parse_outbox_field
from multiagents.core.marks import read_mark
from multiagents.core.names import HEADER
from multiagents.core.states import Kind
from multiagents.engine.messages import Message
from multiagents.saga.commands import Dispatch, Withdraw, parse_retry_timer, retry_timer
from multiagents.storage.keys import due_lease, parse_due
from multiagents.storage.sagas import Attempt

REF = AttemptRef(Kind.UNDO, "charge card", 12)


def test_stored_names_lead_back_to_their_attempt() -> None:
    """The text is part of the stored format: outbox fields, timers and leases contain it."""
    assert (outbox_field(REF), retry_timer(REF)) == ("o:undo:charge card:12", "undo:charge card:12")
    assert parse_outbox_field(outbox_field(REF)) == parse_retry_timer(retry_timer(REF)) == REF
    lease = parse_due(due_lease("s|1", REF, "ab"))
    assert lease is not None
    assert lease.parts == ("undo", "charge card", "12", "ab")


@pytest.mark.parametrize("text", ["", "run:a", "run:a:x", "jump:a:1", "run:a:1:2"])
def test_another_text_names_no_attempt(text: str) -> None:
    """A damaged field is an error, and no attempt by chance."""
    with pytest.raises(ValueError):
        AttemptRef.parse(text)


@pytest.mark.parametrize(
    "value",
    [
        Claimed(1, *REF, "ab"),
        Succeeded(1, *REF, "ab"),
        Failed(1, *REF, "ab", Failure("E", "e")),
        Lost(1, *REF, "ab"),
        Withdrawn(1, *REF, "token"),
        Dispatch(*REF),
        Withdraw(*REF),
        Attempt("s", *REF, "ab"),
        Message("s", *REF, task="t", queue="io", version="v", sent_ms=1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_about_an_attempt_refers_to_it(value: OfAttempt) -> None:
    """Whatever its other fields: entries, commands, messages and claims compare by it."""
    assert value.ref == REF


def test_the_mark_of_a_message_refers_to_its_attempt() -> None:
    """A worker reads from the header for which attempt a message is."""
    sent = Message("s", *REF, task="t", queue="io", version="v", sent_ms=1)
    mark = read_mark({HEADER: sent.headers[HEADER]})
    assert mark is not None
    assert mark.ref == REF
