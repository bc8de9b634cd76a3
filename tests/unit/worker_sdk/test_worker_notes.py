"""Do progress and checkpoints reach the server, also after an outage?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from multiagents.core.clock import FakeClock
from multiagents.core.exceptions import StepTimeout, WorkerExecutionError
from multiagents.core.ports import Assignment
from multiagents.core.states import Kind
from multiagents.storage.client import UNREACHABLE, StoreError
from multiagents.worker_sdk import loop
from multiagents.worker_sdk.notes import LOOP_LATER, SENT_LATER, Notes, once

HELD = Assignment("s", "w", "v", Kind.RUN, "a", 1, "n1", "w", "io", "d")


class Server:
    """A server that records what is stored and may be away."""

    def __init__(self, persist: Callable[..., Any] = once) -> None:
        self.error: Exception | None = None
        self.stored: list[dict[str, str]] = []
        self.lost = False
        self.clock = FakeClock()
        self.known_away = False
        self.notes = Notes(
            self.renew,
            soon=self.renew,
            clock=self.clock,
            persist=persist,
            is_away=lambda: self.known_away,
        )

    def renew(self, held: list[Assignment], notes: dict[str, dict[str, str]]) -> list[Assignment]:
        if self.error is not None:
            raise self.error
        self.stored.append(notes[HELD.nonce])
        return held if self.lost else []

    def go_away(self) -> None:
        self.error = UNREACHABLE[0]("away")


def test_progress_is_kept_while_the_server_is_away_and_the_newest_is_sent() -> None:
    """A heartbeat fails no step, and the log has one line per outage."""
    server = Server()
    assert server.notes.progress(HELD, {"p:a": "1"})
    server.go_away()
    with capture_logs() as logs:
        assert server.notes.progress(HELD, {"p:a": "2"})
        assert server.notes.progress(HELD, {"p:a": "3"})
        server.notes.send()
    assert [line["event"] for line in logs] == [SENT_LATER]
    assert server.notes
    server.error = None
    server.notes.send()
    assert server.stored == [{"p:a": "1"}, {"p:a": "3"}]
    assert not server.notes
    server.go_away()
    with capture_logs() as logs:
        server.notes.progress(HELD, {"p:a": "4"})
    assert [line["event"] for line in logs] == [SENT_LATER]  # another outage


def test_any_refusal_of_the_server_keeps_progress_from_failing_a_step() -> None:
    """A missing right of the Redis user does not fail the step."""
    server = Server()
    server.error = StoreError("NOPERM")
    assert server.notes.progress(HELD, {"p:a": "1"})


def test_no_server_is_asked_that_is_known_to_be_away() -> None:
    """Each heartbeat would otherwise wait for a connection in vain."""
    server = Server()
    server.known_away = True
    assert server.notes.progress(HELD, {"p:a": "1"})
    assert server.stored == []


def test_a_lost_lease_is_told() -> None:
    """Progress and checkpoint both raise, because another attempt may have begun."""
    server = Server()
    server.lost = True
    assert not server.notes.progress(HELD, {"p:a": "1"})
    assert not server.notes.checkpoint(HELD, {"k:a": "1"})


def test_a_checkpoint_waits_for_its_server_until_the_time_out() -> None:
    """Then it raises StepTimeout, because the step's time is over."""

    def persist(store: Callable[[], Any], **_: Any) -> Any:
        for _try in range(10):
            try:
                return store()
            except StoreError:
                server.clock.advance(1)
                if server.back_after and server.clock.now_ms() >= server.back_after:
                    server.error = None
        raise AssertionError("it goes on for ever")

    class Patient(Server):
        back_after = 0

    server = Patient(persist)
    server.go_away()
    server.back_after = server.clock.now_ms() + 3000
    assert server.notes.checkpoint(HELD, {"k:a": "1"})
    assert server.stored == [{"k:a": "1"}]
    server.go_away()
    server.back_after = 0
    held = Assignment(
        *("s", "w", "v", Kind.RUN, "a", 1, "n1", "w", "io", "d"),
        deadline_ms=server.clock.now_ms() + 4000,
        timeout_s=4.0,
    )
    with pytest.raises(StepTimeout, match="4"):
        server.notes.checkpoint(held, {"k:a": "2"})


def test_a_checkpoint_that_is_given_up_says_so() -> None:
    """The error is the engine's, not that of a client the step never called."""
    server = Server()
    server.go_away()
    with pytest.raises(WorkerExecutionError, match="checkpoint of 'a' not stored: its server"):
        server.notes.checkpoint(HELD, {"k:a": "1"})


def test_on_a_loop_a_checkpoint_is_sent_before_the_report() -> None:
    """A wait would block the other async steps; the report is retried during the outage."""
    server = Server()
    server.go_away()

    async def keep() -> bool:
        return server.notes.checkpoint(HELD, {"k:a": "1"})

    with capture_logs() as logs:
        home = loop.home()
        assert asyncio.run_coroutine_threadsafe(keep(), home.loop).result(10)
    assert [line["event"] for line in logs] == [LOOP_LATER]
    with pytest.raises(UNREACHABLE):
        server.notes.flush(HELD)
    server.error = None
    server.notes.flush(HELD)
    server.notes.flush(HELD)
    assert server.stored == [{"k:a": "1"}]


def test_a_note_that_the_server_refuses_keeps_no_report_waiting() -> None:
    """The server may still accept the report."""
    server = Server()
    server.go_away()
    server.notes.progress(HELD, {"p:a": "1"})
    server.error = StoreError("NOPERM")
    server.notes.flush(HELD)
    assert not server.notes


def test_no_older_checkpoint_follows_a_newer_one() -> None:
    """The loop's kept checkpoint and a waiting thread's keep their order."""
    server = Server()
    server.go_away()
    server.notes._keep(HELD, {"k:a": "1", "p:a": "9"}, LOOP_LATER, "away")
    server.error = None
    assert server.notes.checkpoint(HELD, {"k:a": "2"})
    server.notes.send()
    assert server.stored == [{"k:a": "2"}, {"p:a": "9"}]


def test_what_is_over_is_sent_no_more() -> None:
    """A released lease sends no more notes."""
    server = Server()
    server.go_away()
    server.notes.progress(HELD, {"p:a": "1"})
    server.notes.forget(HELD.nonce)
    server.error = None
    server.notes.send()
    assert server.stored == []
