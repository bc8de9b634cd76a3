"""Does a failing test's report say what its sagas did?"""

from __future__ import annotations

import subprocess
from pathlib import Path

from multiagents.testing.report import MOST_EVENTS, WIDEST
from tests.support.processes import PYTEST

MODULE = """
from multiagents import WorkflowBuilder, worker


@worker("report_book")
def book(context):
    return {"booked": 1}


@worker("report_cancel")
def cancel(context):
    return {"cancelled": context["missing"]}


@worker("report_pay", retry=1)
def pay(context):
    raise RuntimeError(f"{'-' * 500} password=hunter2")


pay_wf = (
    WorkflowBuilder("report_trip")
    .add_step("book", book, compensation=cancel)
    .add_step("pay", pay)
    .build()
    .register()
)


@worker("report_slow", retry={"max_attempts": 60, "backoff_s": 0.01})
def slow(context):
    raise RuntimeError("again")


slow_wf = WorkflowBuilder("report_slow").add_step("slow", slow).build().register()


def test_fails(saga_lab):
    saga_id = saga_lab.start("report_trip", {"card": "4242424242"})
    assert saga_lab.get(saga_id)["state"] == "completed"


def test_long(saga_lab):
    assert saga_lab.get(saga_lab.start("report_slow"))["state"] == "completed"


def test_many(saga_lab):
    for _ in range(7):
        saga_lab.start("report_trip")
    assert False


def test_no_saga(saga_lab):
    assert False


def test_passes(saga_lab):
    saga_lab.start("report_trip")
"""


def test_a_failing_test_tells_what_its_sagas_did(tmp_path: Path) -> None:
    """The bounded report has each attempt's error and the cause of the end, without inputs or
    secrets.
    """
    (tmp_path / "test_report.py").write_text(MODULE)
    done = subprocess.run(
        [*PYTEST, "test_report.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "4 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("- sagas of this test -") == 3
    first, long, many = done.stdout.split("- sagas of this test -")[1:]
    assert "of workflow 'report_trip': failed\n  saga: started\n" in first
    assert (
        "  book: undo failed, parked (attempt 3): KeyError: 'missing' (test_report.py:12)\n"
        in first
    )
    assert "The reason: step 'pay' failed with RuntimeError" in first
    section = first.partition("____")[0]
    assert "4242424242" not in section
    assert "hunter2" not in section
    assert all(len(line) <= WIDEST + 1 for line in section.splitlines())
    assert "  slow: failed (attempt 60): RuntimeError: again (test_report.py:31)\n" in long
    assert " earlier events are left out)" in long
    assert long.count("\n  slow: ") <= MOST_EVENTS
    assert "(2 earlier sagas are left out)" in many
    assert many.count("of workflow 'report_trip': failed") == 5
