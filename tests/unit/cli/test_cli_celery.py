"""Does `celery -A proj saga` offer the whole command line, for the sagas of that app?"""

from __future__ import annotations

import io
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import structlog
from celery import Celery

from multiagents import WorkflowBuilder, worker
from multiagents.cli.app import COMMANDS, GROUPS, make_app
from multiagents.cli.celery_plugin import saga
from multiagents.cli.invocation import OWN_SERVERS, Called, as_called, calling, copied
from multiagents.cli.session import find_app
from multiagents.core.settings import REDIS_URL, STATE_URLS, Settings
from multiagents.hosting.runtime import attach
from tests.support.command_line import NO_SERVER, Done, cli
from tests.support.office import FLEET


@worker("cli_celery.do")
def do(context: Any) -> dict[str, Any]:
    return {}


def order() -> Any:
    return (
        WorkflowBuilder("cli-celery")
        .add_step("reserve", "cli_celery.do", compensation="cli_celery.do")
        .build()
    )


@pytest.fixture
def app(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """A team's app; only its own settings name its server."""
    for name in (REDIS_URL, STATE_URLS):
        monkeypatch.delenv(name, raising=False)
    made = Celery("proj", broker=redis_url, backend=redis_url, set_as_current=False)
    runtime = attach(made, Settings())
    yield made
    runtime.edge.client.delete(FLEET)
    runtime.edge.close()


def celery(app: Celery, *words: str, options: tuple[str, ...] = ("-A", "proj")) -> Done:
    """Run ``celery -A proj saga WORDS``."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["/bin/celery", *options, "saga", *words])
        patch.setattr("sys.stdin", io.StringIO())
        try:
            with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
                saga.main(list(words), "saga", obj=SimpleNamespace(app=app))
        finally:
            structlog.reset_defaults()
    assert isinstance(ended.value.code, int)
    return Done(ended.value.code, out.getvalue(), err.getvalue())


def test_it_offers_every_command_but_those_with_servers_of_their_own(app: Celery) -> None:
    """Both programs share one list of commands."""
    shown = celery(app, "--help")
    assert shown.code == 0
    offered = set(re.findall(r"^│ ([a-z][a-z-]*) ", shown.out, re.MULTILINE))
    everything = {name for name, _, _ in COMMANDS} | {name for name, _, _ in GROUPS}
    assert offered == everything - set(OWN_SERVERS)
    assert "Usage: celery -A proj saga [OPTIONS] COMMAND" in shown.out
    refused = celery(app, "dev")
    assert (refused.code, "see `celery -A proj saga --help`" in refused.err) == (2, True)


def test_a_saga_is_started_looked_at_and_steered_there(app: Celery) -> None:
    """Commands use the app's own server, with the exit codes and JSON of `multiagents`."""
    saga_id = attach(app).call("start", order(), {})
    assert celery(app, "show", saga_id, "--json").json["transaction_id"] == saga_id
    assert saga_id in celery(app, "list", "--workflow", "cli-celery").out
    paused = celery(app, "pause", saga_id, "--reason", "bank holiday", "--by", "ada")
    assert (paused.code, paused.out) == (0, f"saga {saga_id} is paused\n")
    (row,) = celery(app, "attention", "--json").lines
    assert (row["by"], row["why"]) == ("ada", "bank holiday")
    assert celery(app, "cancel", saga_id, "no-such-saga").code == 1
    assert celery(app, "watch", saga_id).code == 1
    assert celery(app, "dead-letters", "list").out == "no dead letters\n"


def test_its_advice_names_the_command_as_it_was_called(app: Celery) -> None:
    """Text, JSON, errors, help and examples name commands that work as they stand."""
    saga_id = attach(app).call("start", order(), {})
    explained = celery(app, "explain", saga_id)
    assert explained.out.splitlines()[-1] == "  celery -A proj worker"
    attach(app).call("pause", saga_id)
    resume = f"celery -A proj saga resume {saga_id}"
    assert f"  {resume}\n" in celery(app, "explain", saga_id).out
    assert f"  {resume}\n" in celery(app, "attention").out
    assert celery(app, "explain", saga_id, "--json").json["commands"][0] == resume
    assert celery(app, *shlex.split(resume)[4:]).code == 0
    checks = {c["name"]: c for c in celery(app, "doctor", "--json").json["checks"]}
    assert "broker_url of app 'proj'" in checks["place"]["message"]
    assert checks["workers"]["fix"] == "start one: celery -A proj worker"
    assert "Example: celery -A proj saga show ID" in celery(app, "show", "--help").out
    none = celery(app, "dead-letters", "show", saga_id)
    assert f"see `celery -A proj saga explain {saga_id}`" in none.err


def test_what_else_celery_was_told_is_not_repeated(app: Celery) -> None:
    """Advice omits Celery's other options, because a broker's URL holds a password."""
    options = ("--broker", "redis://:hunter2@h/0", "--app=proj.celery:app")
    shown = celery(app, "list", "--help", options=options)
    assert "Usage: celery -A proj.celery:app saga list" in shown.out
    assert "hunter2" not in shown.out
    assert "Usage: celery saga list" in celery(app, "list", "--help", options=()).out


def test_a_server_that_is_away_is_named_as_the_apps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the app's server, not the one of the environment."""
    monkeypatch.delenv(REDIS_URL, raising=False)
    away = Celery("away", broker=NO_SERVER, backend=NO_SERVER, set_as_current=False)
    attach(away, Settings())
    done = celery(away, "list", options=("-A", "away"))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "redis://127.0.0.1:1/0" in done.err
    assert "broker_url of app 'away'" in done.err


def test_what_the_apps_modules_print_is_no_answer(
    app: Celery, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Output of the app's modules stays off stdout, which belongs to the command."""
    (tmp_path / "proj_that_prints.py").write_text("print('hello')\n")
    monkeypatch.syspath_prepend(tmp_path)
    app.conf.include = ["proj_that_prints"]
    done = celery(app, "attention", "--json")
    assert (done.code, done.out) == (0, "")


def test_a_module_that_cannot_be_imported_is_one_line(app: Celery) -> None:
    """The command imports the app's own modules, for its workflows and for `attach`."""
    app.conf.include = ["no_such_module_of_proj"]
    done = celery(app, "list")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "no_such_module_of_proj" in done.err


FORGOTTEN = """
from celery import Celery
app = Celery("forgotten", broker="redis://127.0.0.1:1/0")
"""


def test_an_app_that_was_never_attached_is_named_with_its_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The error says that the app's workers leave sagas alone, and names the app's file."""
    (tmp_path / "cli_forgotten").mkdir()
    (tmp_path / "cli_forgotten" / "__init__.py").write_text("from .celery import app\n")
    (tmp_path / "cli_forgotten" / "celery.py").write_text(FORGOTTEN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    told = "has no sagas: call multiagents.attach(app) where it is made (cli_forgotten/celery.py)"
    for done in (
        celery(find_app("cli_forgotten"), "list", options=("-A", "cli_forgotten")),
        cli("doctor", "-A", "cli_forgotten", url=NO_SERVER),
        cli("doctor", "-A", "cli_forgotten", "--json", url=NO_SERVER),
    ):
        assert (done.code, done.out) == (2, "")
        assert done.err == f"error: app 'cli_forgotten' {told}\n"


def test_a_module_of_the_app_may_attach_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redis_url: str
) -> None:
    """`doctor -A` imports what a worker would import before it looks."""
    late = FORGOTTEN.replace("redis://127.0.0.1:1/0", redis_url) + "app.conf.include = ['late_one']"
    (tmp_path / "cli_late.py").write_text(late)
    (tmp_path / "late_one.py").write_text(
        "from cli_late import app; from multiagents import attach; attach(app)"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv(REDIS_URL, raising=False)
    done = cli("doctor", "-A", "cli_late", "--json", url=None)
    checks = {each["name"]: each for each in done.json["checks"]}
    assert checks["workers"]["fix"] == "start one: celery -A cli_late worker"


def test_doctor_with_an_app_advises_commands_for_that_app(
    app: Celery, monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    """The advice names `celery -A`, because `multiagents attention` would use another server."""
    saga_id = attach(app).call("start", order(), {})
    attach(app).call("pause", saga_id)
    module = ModuleType("cli_named")
    module.__dict__["app"] = app
    monkeypatch.setitem(sys.modules, "cli_named", module)
    checks = cli("doctor", "-A", "cli_named", "--json", url=None).json["checks"]
    fixes = "\n".join(each.get("fix") or "" for each in checks)
    assert "celery -A cli_named saga attention" in fixes
    assert "start one: celery -A cli_named worker" in fixes
    assert "multiagents attention" not in fixes
    assert "`celery -A cli_named saga attention`" in " ".join(
        cli("doctor", "-A", "cli_named", url=None).out.split()
    )


def test_only_commands_that_are_offered_are_renamed() -> None:
    """Other programs' commands and the user's data stay unchanged."""
    with calling(Called("celery -A p saga", Celery("p", set_as_current=False), ["list", "dev"])):
        assert as_called("`multiagents list`, multiagents dev") == (
            "`celery -A p saga list`, multiagents dev"
        )
        assert as_called("celery -A multiagents worker; multiagents lists") == (
            "celery -A multiagents worker; multiagents lists"
        )
        given = {"input": "multiagents list", "reasons": [{"commands": ["multiagents list"]}]}
        assert copied(given) == {
            "input": "multiagents list",
            "reasons": [{"commands": ["celery -A p saga list"]}],
        }
    assert as_called("multiagents list") == "multiagents list"
    assert make_app().registered_commands[0].name == COMMANDS[0][0]


def test_the_modules_of_the_packages_own_app_are_not_its_modules(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A team's app ignores MULTIAGENTS_IMPORTS, as its workers do."""
    monkeypatch.setenv("MULTIAGENTS_IMPORTS", "cli_celery_nothing")
    assert celery(app, "workflows", "list").code == 0
