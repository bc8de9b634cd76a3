"""Are the logs readable and free of secrets?"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from celery.utils.log import LoggingProxy
from hypothesis import given
from hypothesis import strategies as st
from structlog.contextvars import get_contextvars, merge_contextvars
from structlog.testing import LogCapture

from multiagents import sagas
from multiagents.core.events import Event
from multiagents.core.log_context import bind_step, unbind
from multiagents.core.log_records import StepFilter, add_step_filter
from multiagents.core.logs import tame
from multiagents.event_bus.memory_bus import MemoryEventBus
from multiagents.event_bus.redis_bus import RedisEventBus
from multiagents.monitoring import EventMonitor, MonitoringConfig
from multiagents.monitoring.logs import bound_ids, close_logs
from multiagents.monitoring.redaction import HIDDEN, hide, redact
from multiagents.monitoring.rotation import SharedRotatingFileHandler
from tests.support import basic_workers  # noqa: F401 - registers "telling"
from tests.support.events import command


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in a folder of its own, since the default log path is relative, and reset the logs."""
    monkeypatch.chdir(tmp_path)
    yield
    close_logs()


def lines(path: Path | str = "logs/multiagents.log") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


# The logger


def test_the_default_logger_writes_json_lines_to_the_default_file() -> None:
    """The first record above the level creates file and folder."""
    logger = MonitoringConfig().create_logger()
    logger.debug("too quiet")
    assert not Path("logs").exists()
    logger.info("step done", step="reserve", n=2)
    [line] = lines()
    stamp = line.pop("timestamp")
    assert stamp.endswith("Z")
    assert line == {
        "event": "step done",
        "level": "info",
        "logger": "multiagents",
        "step": "reserve",
        "n": 2,
    }


def test_creating_the_logger_twice_writes_each_line_once() -> None:
    """A process has one output, however many components create a logger."""
    first, second = (MonitoringConfig().create_logger() for _ in range(2))
    first.info("one")
    second.info("two")
    assert [line["event"] for line in lines()] == ["one", "two"]


def test_a_new_configuration_replaces_the_old_one() -> None:
    """The last configuration counts, also for loggers made before."""
    logger = MonitoringConfig().create_logger()
    MonitoringConfig(logging={"file_path": "other.log", "level": "debug"}).create_logger()
    logger.debug("now heard")
    assert [line["event"] for line in lines("other.log")] == ["now heard"]
    assert not Path("logs").exists()


def test_the_console_gets_text_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Stdout belongs to the program (``--json``)."""
    MonitoringConfig(logging={"default_logger": "console"}).create_logger().info("hello", n=1)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "hello" in printed.err
    assert "n=1" in printed.err
    assert not Path("logs").exists()


def test_composite_writes_to_both(capsys: pytest.CaptureFixture[str]) -> None:
    """One record appears in both forms."""
    MonitoringConfig(logging={"default_logger": "composite"}).create_logger().info("hello")
    assert "hello" in capsys.readouterr().err
    assert [line["event"] for line in lines()] == ["hello"]


def test_plain_records_of_the_package_take_the_same_way() -> None:
    """Records of the standard library's loggers look the same in the file."""
    MonitoringConfig().create_logger()
    with bound_ids(transaction_id="t"):
        logging.getLogger("multiagents.orchestrator").warning("lease of %s ran out", "reserve")
    [line] = lines()
    assert line["event"] == "lease of reserve ran out"
    assert line["logger"] == "multiagents.orchestrator"
    assert line["transaction_id"] == "t"


def test_ids_are_bound_for_a_while() -> None:
    """Lines within the block carry the ids, and later lines do not."""
    logger = MonitoringConfig().create_logger()
    with bound_ids(transaction_id="t", correlation_id="c"):
        logger.info("in")
    logger.info("out")
    inside, outside = lines()
    assert (inside["transaction_id"], inside["correlation_id"]) == ("t", "c")
    assert "transaction_id" not in outside


def test_an_exception_is_logged_with_its_traceback_and_without_secrets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Both forms omit local variables."""
    logger = MonitoringConfig(logging={"default_logger": "composite"}).create_logger()
    hidden_local = "hunter3"
    try:
        raise ConnectionError(f"no answer from redis://me:hunter2@host/0 {len(hidden_local)}")
    except ConnectionError:
        logger.exception("lost")
    [line] = lines()
    printed = capsys.readouterr().err
    for text in (line["exception"], printed):
        assert "Traceback" in text
        assert "redis://***@host/0" in text
        assert "hunter" not in text.replace('hidden_local = "hunter3"', "")


def test_the_bus_and_the_logger_work_together() -> None:
    """The log shows a failing handler under its event's ids."""
    logger = MonitoringConfig().create_logger()

    async def refuse(event: Event) -> None:
        raise LookupError("no such order")

    async def scenario() -> None:
        async with MemoryEventBus(logger=logger, max_deliveries=1) as bus:
            await bus.subscribe("command", refuse, group="g")
            await bus.publish(command())
            while not await bus.dead_letters():  # noqa: ASYNC110 - within the test's time-out
                await asyncio.sleep(0.005)

    asyncio.run(asyncio.wait_for(scenario(), 10))
    failed, dead = lines()
    assert failed["event"] == "event handler failed"
    assert failed["transaction_id"] == "t"
    assert "LookupError: no such order" in failed["exception"]
    assert dead["event"] == "event is a dead letter"


def test_a_bus_with_logger_and_monitor_counts_truly(redis_url: str) -> None:
    """The given monitor sees every stage of every event."""
    config = MonitoringConfig()
    logger = config.create_logger()
    monitor = EventMonitor(logger=logger)
    everything_seen = threading.Event()

    def handler(event: Event) -> None:
        if event.transaction_id == "t9":
            everything_seen.set()

    async def scenario() -> None:
        async with RedisEventBus(redis_url, event_monitor=monitor, logger=logger) as bus:
            await bus.subscribe("command", handler, group="g")
            for number in range(10):
                await bus.publish(command(f"t{number}"))
            assert await asyncio.to_thread(everything_seen.wait, 10)

    asyncio.run(scenario())
    metrics = monitor.get_metrics()
    assert metrics["stages"] == {
        "dispatched": 10,
        "published": 10,
        "picked_up": 10,
        "processing": 10,
        "completed": 10,
        "failed": 0,
    }
    assert metrics["pickup_ms"]["samples"] == metrics["handling_ms"]["samples"] == 10


# Secrets


def test_values_under_secret_names_are_hidden() -> None:
    """The rule holds at any depth and for any spelling."""
    record = {
        "password": "x",
        "apiKey": "x",
        "X-Api-Key": "x",
        "OPENAI_API_KEY": "x",
        "headers": {"Authorization": "Bearer abc", "Accept": "json"},
        "list": [{"client_secret": "x"}],
        "access_token": 12345,
    }
    assert redact(None, "info", record) == {
        "password": HIDDEN,
        "apiKey": HIDDEN,
        "X-Api-Key": HIDDEN,
        "OPENAI_API_KEY": HIDDEN,
        "headers": {"Authorization": HIDDEN, "Accept": "json"},
        "list": [{"client_secret": HIDDEN}],
        "access_token": HIDDEN,
    }


def test_harmless_names_stay_readable() -> None:
    """Words such as token counts and secretary are not secret names."""
    record = {"max_tokens": 300, "token_count": 512, "secretary": "Ann", "key": "k", "token": None}
    assert redact(None, "info", record) == record


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("redis://:hunter2@db:6379/0", "redis://***@db:6379/0"),
        ("redis://db:6379/0 and a@b", "redis://db:6379/0 and a@b"),
        ("Authorization: Bearer abcdefgh1234", "Authorization: Bearer ***"),
        ("password=hunter2&user=me", "password=***&user=me"),
        ("{'api_key': 'hunter2', 'n': 1}", "{'api_key': ***, 'n': 1}"),
        ("OPENAI_API_KEY=hunter2", "OPENAI_API_KEY=***"),
        ("3 tokens left: none", "3 tokens left: none"),
    ],
)
def test_secrets_in_text_are_hidden(text: str, safe: str) -> None:
    """Libraries repeat URLs and headers in their messages."""
    assert hide(text) == safe


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), _JSON))
def test_redaction_takes_any_record(record: dict[str, Any]) -> None:
    """Redaction never fails and keeps every name."""
    assert list(redact(None, "info", record)) == list(record)


def test_a_cyclic_value_is_cut() -> None:
    """A cyclic value gives a finite line."""
    loop: dict[str, Any] = {}
    loop["again"] = loop
    assert HIDDEN in json.dumps(redact(None, "info", {"loop": loop}))


# Rotation


def test_two_writers_share_one_rotating_file(tmp_path: Path) -> None:
    """No line gets lost, and no writer stays in a renamed file."""
    path = tmp_path / "deep" / "shared.log"
    writers = [SharedRotatingFileHandler(path, max_bytes=1024, backup_count=50) for _ in range(2)]
    for number in range(200):
        record = logging.makeLogRecord({"msg": f"line {number}", "levelno": 20})
        writers[number % 2].handle(record)
    for writer in writers:
        writer.close()
    files = sorted(path.parent.glob("shared.log*"))
    written = [line for file in files for line in file.read_text().splitlines()]
    assert sorted(written) == sorted(f"line {n}" for n in range(200))
    assert all(file.stat().st_size <= 1024 for file in files)


def test_old_files_are_removed(tmp_path: Path) -> None:
    """Disk use stays within max_bytes times backup_count + 1."""
    path = tmp_path / "small.log"
    writer = SharedRotatingFileHandler(path, max_bytes=1024, backup_count=2)
    for number in range(500):
        writer.handle(logging.makeLogRecord({"msg": f"line {number}"}))
    writer.close()
    assert sorted(p.name for p in tmp_path.glob("small.log*")) == [
        "small.log",
        "small.log.1",
        "small.log.2",
        "small.log.lock",
    ]
    assert "line 499" in path.read_text()


# Which step a line belongs to


def test_a_record_says_to_which_step_it_belongs() -> None:
    """A format may use the attributes, which are empty outside a step."""
    bound = bind_step(saga="s1", workflow="order", step="charge", attempt=2)
    inside = _filtered(logging.makeLogRecord({"msg": "in"}))
    unbind(bound)
    outside = _filtered(logging.makeLogRecord({"msg": "out"}))
    shape = logging.Formatter("%(message)s%(of_step)s %(step)s")
    assert shape.format(inside) == "in saga=s1 workflow=order step=charge attempt=2 charge"
    assert shape.format(outside) == "out "


def _filtered(record: logging.LogRecord) -> logging.LogRecord:
    assert StepFilter().filter(record)
    return record


@contextmanager
def captured_with_context() -> Iterator[list[Any]]:
    """The logged records with structlog's context; `capture_logs` has it from 25.5 on."""
    capture, processors = LogCapture(), structlog.get_config()["processors"]
    before = processors.copy()
    processors[:] = [merge_contextvars, capture]
    try:
        yield capture.entries
    finally:
        processors[:] = before


def test_a_program_keeps_its_own_context_beside_a_steps(saga_lab) -> None:
    """An eager step runs within the caller, which may have bound the same names."""
    with bound_ids(step="mine", user="ada"), captured_with_context() as said:
        saga_id = sagas.start("telling", {})
        assert get_contextvars() == {"step": "mine", "user": "ada"}
    told = [line for line in said if line["event"] == "told by structlog"]
    assert [(line["saga"], line["workflow"], line["step"]) for line in told] == [
        (saga_id, "telling", "one"),
        (saga_id, "telling", "two"),
    ]
    assert {line["user"] for line in told} == {"ada"}


def test_a_line_that_a_worker_prints_has_its_logs_time_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Celery logs printed lines; a program's own stdout has no other time."""
    with structlog_as_it_comes():
        monkeypatch.setattr(sys, "stdout", LoggingProxy(logging.getLogger("redirected"), "WARNING"))
        structlog.get_logger().warning("in a worker", saga="s1")
        monkeypatch.setattr(sys, "stdout", printed := io.StringIO())
        structlog.get_logger().warning("in a program", saga="s1")
    (record,) = caplog.records
    assert not re.search(r"\d\d:\d\d", record.getMessage())
    assert re.search(r"\d\d:\d\d:\d\d.*in a program", printed.getvalue())


@contextmanager
def structlog_as_it_comes() -> Iterator[None]:
    """structlog without any configuration."""
    structlog.reset_defaults()
    tame()
    try:
        yield
    finally:
        structlog.reset_defaults()


def test_handlers_are_given_the_filter_once() -> None:
    """A second set-up by Celery adds no second filter."""
    logger = logging.getLogger("tests.handlers")
    logger.addHandler(logging.NullHandler())
    for _ in range(2):
        add_step_filter(logger)
    assert len(logger.handlers[0].filters) == 1


def test_a_stack_keeps_its_lines(capsys: Any) -> None:
    """A text of many lines stays readable, and its control characters are escaped."""
    with structlog_as_it_comes():
        log = structlog.get_logger("multiagents.x")
        log.warning("blocked", stack="a.py, line 1\n  sl\x1beep()")
    assert "a.py, line 1\n  sl\\x1beep()" in capsys.readouterr().out
