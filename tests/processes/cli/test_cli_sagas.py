"""The command line with a server and a worker: start, look, steer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from tests.support.command_line import cli
from tests.support.gated import start_gated
from tests.support.processes import ROOT, environment

pytestmark = pytest.mark.processes

SAGA_KEYS = {
    "transaction_id",
    "workflow",
    "version",
    "state",
    "current_step",
    "input",
    "step_results",
    "result",
    "error",
    "needs_attention",
    "created_at",
    "updated_at",
    "ended_at",
    "steps",
}


def test_start_wait_prints_the_saga_at_its_end(url: str) -> None:
    """Exit code 0 and the documented shape, with the result."""
    done = cli("start", "greeting", "-i", '{"name": "Ada"}', "--wait", "--json", url=url)
    assert done.code == 0, done.err
    assert done.json.keys() >= SAGA_KEYS
    assert done.json["state"] == "completed"
    assert done.json["result"] == {"greeting": "Hello Ada"}


def test_start_prints_the_id_alone(url: str) -> None:
    """A script can store it, and `show` finds it at once."""
    done = cli("start", "greeting", "--input", "{}", url=url)
    assert done.code == 0
    assert cli("show", done.out.strip(), "--json", url=url).json["workflow"] == "greeting"


def test_start_takes_its_input_from_a_file_or_stdin(url: str, tmp_path: Path) -> None:
    """``@file`` and ``-``."""
    file = tmp_path / "input.json"
    file.write_text('{"name": "File"}')
    from_file = cli("start", "greeting", "-i", f"@{file}", "--json", url=url)
    from_stdin = cli("start", "greeting", "-i", "-", "--json", url=url, stdin='{"name": "Pipe"}')
    assert from_file.json["input"] == {"name": "File"}
    assert from_stdin.json["input"] == {"name": "Pipe"}


def test_start_takes_a_definition_file(url: str, tmp_path: Path) -> None:
    """An unpublished workflow runs from its file."""
    file = tmp_path / "adhoc.json"
    file.write_text(json.dumps({"name": "adhoc", "steps": [{"name": "a", "worker": "cli.greet"}]}))
    done = cli("start", str(file), "--wait", "--json", url=url)
    assert (done.code, done.json["workflow"]) == (0, "adhoc")


def test_start_again_under_one_key_starts_nothing(url: str) -> None:
    """The first saga's id is printed again; with another input only if that is asked for."""
    first = cli("start", "greeting", "--idempotency-key", "k1", url=url)
    again = cli("start", "greeting", "--key", "k1", url=url)
    assert first.out == again.out
    other = ("start", "greeting", "--key", "k1", "-i", '{"name": "Ada"}')
    refused = cli(*other, url=url)
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert first.out.strip() in refused.err
    assert "--on-conflict first" in refused.err
    assert cli(*other, "--on-conflict", "first", url=url).out == first.out


def test_the_ids_that_show_lists_are_taken_by_every_command(url: str) -> None:
    """As they stand in Flower and in the log; what moves a saga says whose id it was given."""
    saga = cli("start", "greeting", "--wait", "--json", url=url).json
    [task_id] = {step["task_id"] for step in saga["steps"].values() if step["task_id"]}
    assert cli("show", task_id, "--json", url=url).json == saga
    assert cli("history", task_id, url=url).out == cli("history", task_id, url=url).out != ""
    assert cli("explain", task_id, url=url).code == 0
    refused = cli("cancel", task_id, url=url)
    assert refused.code == 2
    assert f"give the id of the saga, {saga['transaction_id']}" in refused.err


def test_a_saga_that_failed_gives_exit_code_1(url: str) -> None:
    """A compensated saga is a failure; the error is printed, and user text is not markup."""
    done = cli("start", "failing", "--wait", "--json", url=url)
    assert (done.code, done.json["state"]) == (1, "compensated")
    saga_id = done.json["transaction_id"]
    assert cli("watch", saga_id, url=url).code == 1
    shown = cli("show", saga_id, url=url)
    assert shown.code == 0
    assert "second: NonRetryableError: no [bold]luck[/bold]" in shown.out
    assert "Traceback" not in shown.out


def test_waiting_may_end_before_the_saga(url: str, gate: Path) -> None:
    """The saga is printed as it is, and the error says how to go on."""
    given = json.dumps({"gate": str(gate)})
    done = cli("start", "gated", "-i", given, "--wait", "--timeout", "0", "--json", url=url)
    assert done.code == 2
    assert "multiagents watch" in done.err
    assert done.json["state"] in ("pending", "running")


def test_an_unknown_workflow_names_the_close_ones(url: str) -> None:
    """Wrong use, found before anything is stored."""
    done = cli("start", "greetin", url=url)
    assert done.code == 2
    assert "greeting" in done.err


@pytest.mark.parametrize(
    "command",
    [
        *("show", "watch", "history", "explain", "pause", "resume", "cancel"),
        *("rollback", "terminate", "retry"),
    ],
)
def test_an_unknown_saga_is_wrong_use(url: str, command: str) -> None:
    """One line, exit code 2."""
    done = cli(command, "no-such-saga", "--json", url=url)
    assert (done.code, done.out) == (2, "")
    assert "no-such-saga" in done.err
    assert done.err.count("\n") == 1


def test_list_filters_by_state_workflow_and_tag(url: str) -> None:
    """One object a line; the filters add up."""
    saga_id = cli("start", "greeting", "--tag", "t1", "--wait", "--json", url=url).json[
        "transaction_id"
    ]
    found = cli(
        *("list", "--tag", "t1", "--workflow", "greeting", "--state", "completed", "--json"),
        url=url,
    )
    assert [row["transaction_id"] for row in found.lines] == [saga_id]
    assert cli("list", "--tag", "t1", "--state", "failed", "--json", url=url).out == ""
    assert len(cli("list", "--limit", "1", "--json", url=url).lines) == 1
    assert saga_id in cli("list", "--tag", "t1", url=url).out


def test_history_tells_what_happened_in_order(url: str) -> None:
    """One event a line, in the documented shape."""
    saga_id = cli("start", "greeting", "--wait", "--json", url=url).json["transaction_id"]
    events = cli("history", saga_id, "--json", url=url).lines
    assert {key for event in events for key in event} == {
        "type",
        "step",
        "attempt",
        "at",
        "worker",
        "data",
    }
    kinds = [event["type"] for event in events]
    assert kinds[0] == "started"
    assert kinds.index("step_claimed") < kinds.index("step_succeeded")
    assert kinds[-1] == "saga_completed"
    told = cli("history", saga_id, url=url).out.splitlines()
    assert [line.split()[2:5] for line in (told[3], told[5], told[6])] == [
        ["saga", "-", "started"],
        ["greet", "1", "started"],
        ["greet", "1", "succeeded"],
    ]
    assert told[-1].endswith("completed")


def test_pause_and_resume_are_recorded_with_their_reason(url: str, gate: Path) -> None:
    """A paused saga begins no step; resumed, it completes."""
    saga_id = start_gated(url, gate)
    paused = cli("pause", saga_id, "--reason", "bank is down", "--json", url=url)
    assert (paused.code, paused.json["state"]) == (0, "paused")
    gate.touch()
    resumed = cli("resume", saga_id, url=url)
    assert resumed.code == 0
    assert cli("watch", saga_id, url=url).code == 0
    asked = [e for e in cli("history", saga_id, "--json", url=url).lines if e["type"] == "asked"]
    assert [event["data"]["command"] for event in asked] == ["pause", "resume"]
    assert asked[0]["data"]["reason"] == "bank is down"


def test_cancel_undoes_what_was_done(url: str, gate: Path) -> None:
    """The saga ends cancelled, its first step undone."""
    saga_id = start_gated(url, gate)
    assert cli("cancel", saga_id, url=url).code == 0
    gate.touch()
    done = cli("watch", saga_id, "--json", url=url)
    assert done.code == 1
    assert done.lines[-1]["state"] == "cancelled"
    assert done.lines[-1]["steps"]["first"]["compensation"]["state"] == "succeeded"


def test_a_rolled_back_saga_is_parked_explained_retried_and_undone(url: str, gate: Path) -> None:
    """A dead letter from its beginning to its end, by a real worker."""
    given = json.dumps({"gate": str(gate)})
    start = ("start", "stubborn", "-i", given, "--wait", "--json")
    saga_id = cli(*start, url=url).json["transaction_id"]
    rolled = cli("rollback", saga_id, "--by", "ada", "--reason", "wrong price", url=url)
    assert rolled.code == 0, rolled.err
    assert cli("watch", saga_id, url=url).code == 1
    letter = cli("dead-letters", "show", saga_id, "--json", url=url).json
    assert (letter["kind"], letter["step"], letter["state"]) == ("undo", "first", "failed")
    assert letter["error"]["message"] == "the bank is closed"
    told = cli("explain", saga_id, url=url).out
    assert "it was rolled back by ada" in told
    assert f"multiagents retry {saga_id} first" in told
    gate.touch()
    assert cli("retry", saga_id, "first", "--reason", "open again", url=url).code == 0
    assert cli("watch", saga_id, "--json", url=url).lines[-1]["state"] == "compensated"
    events = cli("history", saga_id, "--json", url=url).lines
    asked = [event["data"] for event in events if event["type"] == "asked"]
    assert [each["command"] for each in asked] == ["rollback", "retry"]
    assert [each["reason"] for each in asked] == ["wrong price", "open again"]


def test_a_running_step_is_explained_and_terminated(url: str, gate: Path) -> None:
    """Where it runs and how far it is; terminated, nothing is undone."""
    saga_id = start_gated(url, gate)
    told = cli("explain", saga_id, "--json", url=url).json
    running = next(each for each in told["reasons"] if each["code"] == "running")
    assert "at 40%, page 4/10; its lease lasts until" in running["text"]
    assert "among the running workers" not in running["text"]
    done = cli("terminate", saga_id, "--reason", "a mess", "--json", url=url)
    assert (done.code, done.json["state"], done.json["needs_attention"]) == (0, "failed", True)
    assert done.json["steps"]["first"]["compensation"] is None
    assert "'a mess'" in cli("explain", saga_id, url=url).out


@pytest.mark.parametrize("command", ["pause", "resume", "cancel"])
def test_an_ended_saga_cannot_be_steered(url: str, command: str) -> None:
    """Wrong use; the saga's log does not grow."""
    saga_id = cli("start", "greeting", "--wait", "--json", url=url).json["transaction_id"]
    before = cli("history", saga_id, "--json", url=url).out
    done = cli(command, saga_id, url=url)
    assert done.code == 2
    assert "it is completed" in done.err
    assert cli("history", saga_id, "--json", url=url).out == before


def test_workers_shows_the_fleet(url: str) -> None:
    """Host, queues, names with their queue, and when it was last heard of."""
    (member,) = cli("workers", "--json", url=url).lines
    assert member["queues"] == ["io", "llm"]
    assert member["workers"]["cli.greet"] == "io"
    assert member["last_seen"].endswith("+00:00")
    assert member["blocked_loop"] is None
    assert member["hostname"] in cli("workers", url=url).out


def test_workflows_are_listed_and_shown(url: str, tmp_path: Path) -> None:
    """The output of `show` is a definition that `validate` accepts."""
    names = [row["name"] for row in cli("workflows", "list", "--json", url=url).lines]
    assert {"greeting", "gated", "failing"} <= set(names)
    assert "Waits for a file" in cli("workflows", "list", url=url).out
    file = tmp_path / "gated.json"
    file.write_text(cli("workflows", "show", "gated", url=url).out)
    assert cli("workflows", "validate", str(file)).code == 0
    assert cli("workflows", "show", "nothing", url=url).code == 2


def test_celery_saga_starts_lists_and_shows(url: str) -> None:
    """`celery -A multiagents saga` in a process of its own, by Celery's own command line."""

    def celery(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "celery", "-A", "multiagents", "saga", *words]
        return subprocess.run(
            command, env=environment(url), cwd=ROOT, capture_output=True, text=True
        )

    started = celery("start", "greeting", "--wait", "--json")
    assert started.returncode == 0, started.stderr
    saga_id = json.loads(started.stdout)["transaction_id"]
    assert saga_id in celery("list", "--workflow", "greeting", "--json").stdout
    missing = celery("show", "no-such-saga")
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)


def test_a_server_that_refuses_writes_is_one_line(url: str) -> None:
    """The line names the refused command and the server, without its password."""
    with redis.Redis.from_url(url) as client:
        rights = ["+@all", "-eval", "-evalsha"]
        client.acl_setuser("reader", enabled=True, passwords=["+pw"], keys=["*"], commands=rights)
        try:
            done = cli("start", "greeting", "--json", url=url.replace("//", "//reader:pw@"))
        finally:
            client.acl_deluser("reader")
    assert (done.code, done.out) == (2, "")
    assert "refused" in done.err
    assert "reader:pw" not in done.err
    assert done.err.count("\n") == 1
