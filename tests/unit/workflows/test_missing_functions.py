"""Is a function that no worker has found before a saga needs it?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import structlog

from multiagents.cli.dev.greeting import DevServer, block
from multiagents.cli.dev.process import Wish
from multiagents.cli.dev.report import WorkerReport
from multiagents.cli.dev.worker import lacked
from multiagents.core.places import Place as Line
from multiagents.hosting import start_log
from multiagents.worker_sdk.context import Context
from multiagents.worker_sdk.decorators import worker
from multiagents.worker_sdk.registry import workers
from multiagents.workflows import registry
from multiagents.workflows.builder import WorkflowBuilder, task
from multiagents.workflows.missing_functions import missing
from tests.support.command_line import NO_SERVER, cli
from tests.support.processes import ROOT

TRIP = (
    WorkflowBuilder("mf_trip")
    .add_step("book", "mf_book", compensation="mf_cancle")
    .add_step("again", "mf_book", compensation="mf_cancle")
    .add_step("pay", "bank_pay")
    .add_step("mail", task("shop.mial"))
    .build()
)
MODULE = """
from multiagents import worker

@worker("mv_book")
def book(context):
    return {}

@worker("mv_cancel")
def cancel(context):
    return {}
"""


def book(context: Context) -> dict[str, Any]:
    return {}


def cancel(context: Context) -> dict[str, Any]:
    return {}


def test_a_name_that_is_nearly_one_here_is_taken_for_a_mistake() -> None:
    """Each is reported once; other names may belong to other workers; plain tasks are left out."""
    found = list(missing([TRIP], ["mf_book", "mf_cancel"], place_of=lambda _: Line("trip.py", 12)))
    assert [each.text for each in found] == [
        "workflow 'mf_trip' (trip.py:12): no worker function here is called 'mf_cancle';"
        " did you mean 'mf_cancel'?",
        "workflow 'mf_trip' (trip.py:12): no worker function here is called 'bank_pay';"
        " its steps wait for a worker that has it",
    ]


def test_two_names_that_mean_two_things_are_not_confused() -> None:
    """A compensation's name often resembles its step's."""
    flow = WorkflowBuilder("mf_stock").add_step("a", "reserve_stock", compensation="release_stock")
    assert [each.meant for each in missing([flow.build()], ["reserve_stock"])] == [""]


def test_a_starting_worker_logs_the_functions_that_it_lacks() -> None:
    """A likely typing mistake is a warning with the workflow's line."""
    worker("mf_book")(book)
    worker("mf_cancel")(cancel)
    registry.register(TRIP)
    try:
        with structlog.testing.capture_logs() as said:
            start_log.log_missing(workers())
    finally:
        registry.forget(TRIP.name)
    told = {line["log_level"]: line["event"] for line in said if "mf_trip" in line["event"]}
    assert "'mf_cancle'; did you mean 'mf_cancel'?" in told["warning"]
    assert f"({Path(__file__).relative_to(ROOT)}:" in told["warning"]
    assert "'bank_pay'; its steps wait" in told["info"]


def test_dev_says_that_a_workflow_cannot_be_started() -> None:
    """`dev` gives the same suggestion as a start."""
    (one, two) = missing([TRIP], ["mf_book", "mf_cancel"])
    assert lacked(one, ["mf_book", "mf_cancel"]) == (
        "workflow 'mf_trip' cannot be started: no worker function here is called 'mf_cancle';"
        " did you mean 'mf_cancel'?"
    )
    assert lacked(two, ["mf_book", "mf_cancel"]).endswith(
        "called 'bank_pay'; start a worker that has it, too"
    )
    assert lacked(two, ["mf_book", "bank.pays"]).endswith("did you mean 'bank.pays'?")


def test_dev_names_them_when_all_is_ready() -> None:
    """The names stand within 80 columns, before the commands."""
    lacking = {each.function: each.text for each in missing([TRIP], ["mf_book", "mf_cancel"])}
    report = WorkerReport(functions=("mf_book", "mf_cancel"), missing=lacking)
    lines = block(
        DevServer("redis://h/0", None), Wish({}), report, stub=False, seconds=1
    ).splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("  missing "))
    assert at < lines.index("In another terminal:")
    assert max(map(len, lines[at : at + 4])) <= 80
    assert "did you mean 'mf_cancel'?" in " ".join(lines[at : at + 2])


def test_validate_compares_with_the_modules_that_are_named(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A likely typing mistake is an error; a name that another worker may have is a note."""
    (tmp_path / "mv_module.py").write_text(MODULE)
    steps = [
        {"name": "a", "worker": "mv_book", "compensation": "mv_cancle"},
        {"name": "b", "worker": "bank_pay", "depends_on": ["a"]},
    ]
    typo, other = tmp_path / "typo.json", tmp_path / "other.json"
    typo.write_text(json.dumps({"name": "typo", "steps": steps[:1]}))
    other.write_text(json.dumps({"name": "other", "steps": [{"name": "b", "worker": "bank_pay"}]}))
    monkeypatch.syspath_prepend(tmp_path)
    named = {"MULTIAGENTS_IMPORTS": "mv_module"}
    bare = cli("workflows", "validate", str(typo), url=NO_SERVER)
    assert (bare.code, bare.err) == (0, "")
    wrong = cli("workflows", "validate", str(typo), url=redis_url, **named)
    assert wrong.code == 2
    assert "no known function is called 'mv_cancle', its compensation" in wrong.out
    unsure = cli("workflows", "validate", str(other), "--json", url=NO_SERVER, **named)
    assert (unsure.code, unsure.json["missing"]) == (0, ["bank_pay"])
    assert "the functions of running workers are unknown: cannot reach the server" in unsure.err
    known = cli("workflows", "validate", str(other), url=redis_url, **named)
    assert (known.code, "not known" in known.err) == (0, False)
    assert "step 'b': no known function is called 'bank_pay', its worker" in known.err
