"""Can foreign text control a terminal, or a log show secrets?

Reasons, ids, errors and tags come from callers and workers. People read them on terminals.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import structlog

from multiagents import WorkflowBuilder, worker
from multiagents.cli.output import console, emit, hint, say, table
from multiagents.core.entries import Failure
from multiagents.core.exceptions import WorkerExecutionError
from multiagents.core.logs import plainly, tame
from multiagents.core.ports import Verdict
from multiagents.core.server_urls import shown_url
from multiagents.core.texts import shown, shown_line
from multiagents.event_bus.logger import structured
from multiagents.monitoring.config_models import LoggingConfig
from multiagents.monitoring.logs import close_logs, open_logs
from multiagents.monitoring.redaction import hide
from tests.support.command_line import cli
from tests.support.office import open_office

EVIL = "\x1b]0;PWNED\x07\x1b[31mRED\x1b[2J"
AS_TEXT = "\\x1b]0;PWNED\\x07\\x1b[31mRED\\x1b[2J"


@worker("esc.work")
def esc_work(context: dict[str, Any]) -> dict[str, Any]:
    return {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (EVIL, AS_TEXT),
        ("plain, größer, 日本\tand\nlines", "plain, größer, 日本\tand\nlines"),
        ("back\b\r\x00", "back\\x08\\r\\x00"),
        ("\x9b31m \x85", "\\x9b31m \\x85"),
        ("pay \u202e001 EUR", "pay \\u202e001 EUR"),
        ("half \ud83d", "half \\ud83d"),
    ],
)
def test_control_characters_are_shown_as_text(text: str, expected: str) -> None:
    """Other characters stay unchanged."""
    assert shown(text) == expected
    assert shown_line(text) == expected.replace("\n", "\\n")
    expected.encode()


def test_all_that_is_printed_for_people_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines, hints and rich's output are escaped; JSON stays JSON."""
    say(EVIL)
    hint(EVIL)
    console().print(table(("A", "B"), [(EVIL, 1)]))
    console().print(EVIL)
    emit({"reason": EVIL, "half": "\ud83d"})
    out, error = capsys.readouterr()
    *lines, last = out.splitlines()
    assert "\x1b" not in out + error
    assert error.strip() == lines[0] == AS_TEXT
    assert AS_TEXT in lines[2]
    assert "\\x1b[31mRED" in lines[3]
    assert json.loads(last) == {"reason": EVIL, "half": "\ud83d"}


def test_no_command_prints_what_a_saga_holds_as_it_stands(redis_url: str) -> None:
    """Each command escapes a saga's tags, errors and reasons."""
    workflow = WorkflowBuilder("escaping").add_step("one", "esc.work").build()
    with open_office(redis_url) as office:
        saga_id = office.runtime.call(
            "start", workflow, {"x": EVIL}, tags=[EVIL], correlation_id=EVIL
        )
        held = office.claim(saga_id, "one")
        verdict = Verdict(Failure("Evil", EVIL), retryable=True)
        office.runtime.host.engine.fail(held, verdict, go_on=False)
        office.runtime.call("cancel", saga_id, reason=EVIL)
        for command in ("show", "history", "explain"):
            told = cli(command, saga_id, url=redis_url)
            assert "\x1b" not in told.out + told.err, command
            json.loads(cli(command, saga_id, "--json", url=redis_url).out.splitlines()[0])
        assert "\x1b" not in cli("list", url=redis_url).out


def lines_of(log: Any) -> None:
    """The engine's log lines about a failure."""
    password = "hunter2"  # noqa: F841 - a local variable, which no traceback may show
    try:
        raise WorkerExecutionError(f"bad {EVIL}")
    except WorkerExecutionError as error:
        log.error(f"saga {EVIL}\nforged [info] line", why=EVIL, exc_info=error)


def test_a_log_line_of_the_engine_is_text_without_local_variables(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Unconfigured, structlog's tracebacks would show local variables."""
    structlog.reset_defaults()
    tame()
    tame()
    assert structlog.get_config()["processors"].count(plainly) == 1
    lines_of(structlog.get_logger("multiagents"))
    out = capsys.readouterr().out
    assert "\x1b]" not in out
    assert "hunter2" not in out
    assert "Traceback (most recent call last)" in out
    assert "\\nforged [info] line" in out


def test_the_monitors_console_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    """The traceback's message is escaped, too."""
    try:
        lines_of(open_logs(LoggingConfig(default_logger="console")))
    finally:
        close_logs()
    out = capsys.readouterr().err
    assert "\x1b]" not in out
    assert "hunter2" not in out
    assert AS_TEXT in out


def test_the_monitors_file_stays_json(tmp_path: Path) -> None:
    """Each line is one object, whatever it holds."""
    path = tmp_path / "log.json"
    try:
        lines_of(open_logs(LoggingConfig(default_logger="file", file_path=path)))
    finally:
        close_logs()
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["why"] == EVIL


def test_a_bus_logs_text(caplog: pytest.LogCaptureFixture) -> None:
    """The standard library's log lines are escaped, too."""
    with caplog.at_level(logging.WARNING):
        structured(None, "escaping").warning("lost", why=EVIL)
    assert caplog.messages == [f"lost why={AS_TEXT}"]


@pytest.mark.parametrize("secret", ["hun/ter2", "hun@ter2", "hun#ter2", "hun?ter2", "hun%2Fter2"])
@pytest.mark.parametrize("user", ["", "me"])
def test_a_password_is_cut_whatever_it_holds(secret: str, user: str) -> None:
    """An unencoded separator in it does not shift the host."""
    url = f"redis://{user}:{secret}@db:6379/0"
    assert not any(part in shown_url(url) for part in ("hun", "ter2"))
    hidden = hide(f"cannot reach {url}: refused")
    assert hidden == "cannot reach redis://***@db:6379/0: refused"
