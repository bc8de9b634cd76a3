"""Do the monitors count correctly, and does their file mean what it says?"""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import CapturingLogger

from multiagents.core.clock import FakeClock
from multiagents.core.events import Event, ResultEvent
from multiagents.core.exceptions import InvalidInput
from multiagents.monitoring import EventMonitor, MonitoringConfig, WorkerMonitor
from multiagents.monitoring.logs import close_logs
from multiagents.monitoring.samples import Samples
from tests.support.events import command

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in a folder of its own, since the default log path is relative, and reset the logs."""
    monkeypatch.chdir(tmp_path)
    yield
    close_logs()


# The configuration file


def test_the_file_of_the_project_holds_the_defaults() -> None:
    """The file shows every key with its default value."""
    path = ROOT / "monitoring.yaml"
    assert MonitoringConfig.from_file(path) == MonitoringConfig()
    text = path.read_text()
    for section, model in MonitoringConfig().model_dump().items():
        assert section in text
        assert all(f"  {key}: " in text for key in model)


def test_a_file_may_set_some_keys_or_none(tmp_path: Path) -> None:
    """A missing key keeps its default."""
    path = tmp_path / "m.yaml"
    path.write_text("logging:\n  level: warning\n")
    assert MonitoringConfig.from_file(path).logging.level == "WARNING"
    path.write_text("")
    assert MonitoringConfig.from_file(str(path)) == MonitoringConfig()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("logging: {level: LOUD}", r"m\.yaml: logging\.level is 'LOUD': .*'DEBUG'"),
        ("loging: {}", r"m\.yaml: loging: no such key"),
        ("event_monitoring: {retention: 1}", r"m\.yaml: event_monitoring\.retention: no such key"),
        (
            "worker_monitoring: {health_check_interval_seconds: 0}",
            r"worker_monitoring\.health_check_interval_seconds is 0: .*greater than 0",
        ),
        ("- 1", r"m\.yaml holds a list; expected the sections logging, event_monitoring, worker"),
        ("a: [", r"m\.yaml is not YAML"),
    ],
)
def test_a_wrong_file_is_refused_naming_file_and_key(
    tmp_path: Path, content: str, message: str
) -> None:
    """The error names the file and the key."""
    path = tmp_path / "m.yaml"
    path.write_text(content)
    with pytest.raises(InvalidInput, match=message):
        MonitoringConfig.from_file(path)


def test_a_missing_file_is_named() -> None:
    """The error says what to do instead."""
    with pytest.raises(InvalidInput, match=r"nowhere\.yaml: No such file.*MonitoringConfig\(\)"):
        MonitoringConfig.from_file("nowhere.yaml")


def test_the_configuration_makes_the_monitors_it_describes() -> None:
    """A disabled monitor is not made."""
    config = MonitoringConfig(worker_monitoring={"enabled": False})
    assert isinstance(config.create_event_monitor(), EventMonitor)
    assert config.create_worker_monitor() is None


def test_importing_monitoring_does_not_import_structlog() -> None:
    """The import would take 0.1 s from commands without logs."""
    code = "import sys, multiagents.monitoring; sys.exit('structlog' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# Events


def test_the_stages_of_an_event_are_counted_and_timed() -> None:
    """Times run from dispatch to pick-up and to the end, in ms of the given clock."""
    clock = FakeClock()
    monitor = EventMonitor(clock=clock)
    for pickup_s, work_s in ((0.1, 1), (0.2, 2), (0.3, 3)):
        event = command()
        monitor.track_event_lifecycle(event, "dispatched")
        monitor.track_event_lifecycle(event, "published")
        clock.advance(pickup_s)
        monitor.track_event_lifecycle(event, "picked_up")
        monitor.track_event_lifecycle(event, "processing")
        clock.advance(work_s)
        monitor.track_event_lifecycle(event, "failed" if work_s == 3 else "completed")
    metrics = monitor.get_metrics()
    assert metrics["stages"] == {
        "dispatched": 3,
        "published": 3,
        "picked_up": 3,
        "processing": 3,
        "completed": 2,
        "failed": 1,
    }
    assert metrics["pickup_ms"] == {
        "samples": 3,
        "mean": 200,
        "median": 200,
        "p95": 300,
        "max": 300,
    }
    assert metrics["handling_ms"]["median"] == 2000
    assert metrics["by_type"]["command"]["stages"] == metrics["stages"]


def test_an_event_from_elsewhere_is_timed_from_its_timestamp() -> None:
    """The publisher's monitor is in another process."""
    clock = FakeClock()  # begins at the timestamp of `command`
    monitor = EventMonitor(clock=clock)
    clock.advance(2.5)
    monitor.track_event_lifecycle(command(), "picked_up")
    assert monitor.get_metrics()["pickup_ms"]["max"] == 2500


def test_groups_and_redeliveries_do_not_falsify_the_times() -> None:
    """Only the first pick-up counts; each end counts with its own duration."""
    clock, event = FakeClock(), command()
    monitor = EventMonitor(clock=clock)
    monitor.track_event_lifecycle(event, "dispatched")
    for stage, then_s in (("picked_up", 1), ("picked_up", 1), ("failed", 1), ("completed", 0)):
        monitor.track_event_lifecycle(event, stage)
        clock.advance(then_s)
    metrics = monitor.get_metrics()
    assert metrics["pickup_ms"]["samples"] == 1
    assert metrics["stages"]["picked_up"] == 2
    assert (metrics["handling_ms"]["samples"], metrics["handling_ms"]["mean"]) == (2, 2000)


def test_tracking_can_be_called_or_awaited() -> None:
    """Both ways record the stage and leave no coroutine behind."""
    monitor = EventMonitor()

    async def awaiting() -> None:
        await monitor.track_event_lifecycle(command(), "published")

    monitor.track_event_lifecycle(command(), "published")
    asyncio.run(awaiting())
    assert monitor.get_metrics()["stages"]["published"] == 2


def test_an_unknown_stage_is_refused() -> None:
    """A typing mistake raises instead of counting."""
    with pytest.raises(InvalidInput, match="'done'; known: dispatched, published, picked_up"):
        EventMonitor().track_event_lifecycle(command(), "done")


class Watcher:
    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def on_event_stage(self, event: Event, stage: str) -> None:
        self.seen.append((event.transaction_id, stage))


class Broken:
    def on_event_stage(self, event: Event, stage: str) -> None:
        raise ZeroDivisionError


def test_an_observer_that_fails_does_not_stop_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log names the failing observer."""
    monitor, watcher = EventMonitor(), Watcher()
    monitor.observers += [Broken(), watcher]
    monitor.track_event_lifecycle(command(), "published")
    assert watcher.seen == [("t", "published")]
    [record] = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "event observer failed observer=Broken stage=published" in record.getMessage()
    assert record.exc_info


def test_a_trace_tells_the_way_of_a_sagas_events() -> None:
    """The trace is a copy, in order, with names and times."""
    monitor = EventMonitor(clock=FakeClock())
    first, second = command(), ResultEvent(transaction_id="t", worker_name="w", step_name="s")
    monitor.track_event_lifecycle(first, "published")
    monitor.track_event_lifecycle(second, "completed")
    monitor.track_event_lifecycle(command("other"), "published")
    trace = monitor.get_trace("t")
    assert trace[0] == {
        "at": "2023-11-14T22:13:20.000+00:00",
        "stage": "published",
        "event_type": "command",
        "event_id": first.event_id,
        "transaction_id": "t",
        "correlation_id": "c",
        "worker_name": "w",
        "step_name": None,
    }
    assert (trace[1]["event_id"], trace[1]["step_name"]) == (second.event_id, "s")
    trace.clear()
    assert len(monitor.get_trace("t")) == 2
    assert monitor.get_trace("unknown") == []


def test_traces_are_forgotten_after_the_retention_but_counts_are_not() -> None:
    """An active saga's trace stays."""
    clock = FakeClock()
    monitor = EventMonitor(retention_hours=1, clock=clock)
    for saga in ("old", "busy"):
        monitor.track_event_lifecycle(command(saga), "published")
    clock.advance(3000)
    monitor.track_event_lifecycle(command("busy"), "published")
    clock.advance(1000)
    assert monitor.get_trace("old") == []
    assert len(monitor.get_trace("busy")) == 2
    assert monitor.get_metrics()["stages"]["published"] == 3
    assert monitor.get_metrics()["traces"] == 1


def test_memory_is_bounded() -> None:
    """The monitor limits the number of sagas and of stages in each."""
    monitor = EventMonitor(max_traces=3)
    for number in range(10):
        monitor.track_event_lifecycle(command(f"t{number}"), "published")
    assert monitor.get_metrics()["traces"] == 3
    assert monitor.get_trace("t0") == []
    for _ in range(1000):
        monitor.track_event_lifecycle(command("t9"), "published")
    assert len(monitor.get_trace("t9")) == 500


def test_events_are_counted_from_many_threads() -> None:
    """No call gets lost."""
    monitor, workers = EventMonitor(), WorkerMonitor()

    def count() -> None:
        for _ in range(200):
            monitor.track_event_lifecycle(command(), "published")
            workers.record_start("w")
            workers.record_success("w", 0.1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert monitor.get_metrics()["stages"]["published"] == 800
    stats = workers.get_worker_stats("w")
    assert (stats["started"], stats["succeeded"], stats["in_progress"]) == (800, 800, 0)


# Workers


def test_a_workers_numbers_are_true() -> None:
    """The summary has counts, rates, durations and errors by type."""
    monitor = WorkerMonitor(clock=FakeClock())
    for number in range(1, 9):
        monitor.record_start("w", transaction_id="t")
        monitor.record_success("w", number / 10)
    for error in (ValueError("secret 1"), ValueError("secret 2"), "KeyError: 'x'"):
        monitor.record_start("w")
        monitor.record_failure("w", error, 1.0)
    monitor.record_start("w")
    stats = monitor.get_worker_stats("w")
    assert (stats["started"], stats["in_progress"]) == (12, 1)
    assert (stats["succeeded"], stats["failed"]) == (8, 3)
    assert stats["success_rate"] == pytest.approx(8 / 11)
    assert stats["failure_rate"] == pytest.approx(3 / 11)
    assert stats["duration_s"]["samples"] == 11
    assert stats["duration_s"]["median"] == 0.6
    assert stats["duration_s"]["max"] == 1.0
    assert stats["errors"] == {"ValueError": 2, "KeyError": 1}
    assert stats["last_error"] == "KeyError"
    assert "secret" not in json.dumps(monitor.get_all_stats())


def test_an_unseen_worker_is_unknown() -> None:
    """An unknown worker has zeros and no rates, and a query does not create it."""
    monitor = WorkerMonitor()
    stats = monitor.get_worker_stats("ghost")
    assert (stats["health"], stats["success_rate"], stats["started"]) == ("unknown", None, 0)
    assert monitor.get_all_stats() == {}


@pytest.mark.parametrize(
    ("succeeded", "failed", "health"),
    [
        (10, 0, "healthy"),
        (19, 1, "healthy"),
        (9, 1, "degraded"),
        (0, 1, "degraded"),
        (0, 2, "degraded"),
        (3, 3, "unhealthy"),
        (0, 3, "unhealthy"),
    ],
)
def test_health_follows_the_recent_failures(succeeded: int, failed: int, health: str) -> None:
    """A tenth of failures means degraded; half of them, and at least three, unhealthy."""
    monitor = WorkerMonitor(clock=FakeClock())
    for _ in range(succeeded):
        monitor.record_success("w", 0.1)
    for _ in range(failed):
        monitor.record_failure("w", OSError(), 0.1)
    assert monitor.get_worker_stats("w")["health"] == health


def test_old_failures_do_not_count_for_health() -> None:
    """Fifty newer successes or 15 minutes clear them; the totals stay."""
    clock = FakeClock()
    monitor = WorkerMonitor(clock=clock)
    for worker in ("busy", "silent"):
        for _ in range(5):
            monitor.record_failure(worker, OSError(), 0.1)
    for _ in range(50):
        monitor.record_success("busy", 0.1)
    assert monitor.get_worker_stats("busy")["health"] == "healthy"
    assert monitor.get_worker_stats("silent")["health"] == "unhealthy"
    clock.advance(901)
    assert monitor.get_worker_stats("silent")["health"] == "unknown"
    assert monitor.get_worker_stats("silent")["failed"] == 5


def test_error_types_are_bounded() -> None:
    """A worker with ever new error types does not fill the memory."""
    monitor = WorkerMonitor()
    for number in range(200):
        monitor.record_failure("w", f"Error{number}: x", 0.1)
    errors = monitor.get_worker_stats("w")["errors"]
    assert len(errors) == 51
    assert errors["other"] == 150


def test_a_change_of_health_is_logged_at_most_once_per_interval() -> None:
    """The log reports a change of health once, not for each failure."""
    clock, output = FakeClock(), CapturingLogger()
    monitor = WorkerMonitor(output, health_check_interval_s=30, clock=clock)
    monitor.record_success("w", 0.1)
    for _ in range(5):
        monitor.record_failure("w", OSError(), 0.1)
    clock.advance(31)
    for _ in range(5):
        monitor.record_failure("w", OSError(), 0.1)
    health = [call.kwargs["health"] for call in output.calls if call.args == ("worker health",)]
    assert health == ["healthy", "unhealthy"]


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60))
def test_a_summary_is_made_of_the_newest_values(values: list[float]) -> None:
    """p95 is a measured value between median and maximum."""
    samples = Samples(20)
    for value in values:
        samples.add(value)
    newest, summary = values[-20:], samples.summary()
    assert summary["samples"] == len(newest)
    assert summary["max"] == max(newest)
    assert summary["p95"] in newest
    assert summary["median"] is not None
    assert summary["p95"] is not None
    assert summary["median"] <= summary["p95"] <= max(newest)
