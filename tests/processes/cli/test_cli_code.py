"""What does a client know whose MULTIAGENTS_IMPORTS is set, and what is it told otherwise?

In process: a module that is imported once stays known to the test's process, so each test has a
module of its own.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from multiagents import UnknownWorker, UnknownWorkflow
from multiagents.core.clock import SystemClock
from multiagents.core.ports import WorkerInfo
from multiagents.core.settings import Settings
from multiagents.core.texts import joined
from multiagents.engine.catalog import Catalog
from multiagents.hosting.app import make_app
from multiagents.hosting.runtime import Runtime
from multiagents.storage.client import Edge
from multiagents.workflows import registry
from multiagents.workflows.step import Step
from multiagents.workflows.workflow import Workflow
from tests.support.command_line import NO_SERVER, cli
from tests.support.processes import environment

MODULE = """
from multiagents import WorkflowBuilder, worker

print("a module may talk")

@worker("{name}.do")
def do(context):
    return {{"done": True}}

WorkflowBuilder("{name}").add_step("do", "{name}.do").build().register()
"""
Module = Callable[[str], str]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Module]:
    """Write a module that registers a workflow of its name; its name."""
    monkeypatch.chdir(tmp_path)
    names: list[str] = []

    def write(name: str) -> str:
        (tmp_path / f"{name}.py").write_text(MODULE.format(name=name))
        importlib.invalidate_caches()
        names.append(name)
        return name

    yield write
    for name in names:
        registry.forget(name)
        sys.modules.pop(name, None)


def publish(url: str, worker: str, workflow: Workflow, *, host: str = "w@host") -> Catalog:
    """As a running worker does."""
    clock = SystemClock()
    catalog, edge = Catalog(clock), Edge(url)
    edge.correct(clock)
    catalog.add_local(WorkerInfo(worker, "io"))
    edge.run(catalog.publish(host, ["io"], [workflow]))
    edge.close()
    return catalog


def row_of(name: str, url: str, **env: str) -> dict[str, Any]:
    (row,) = [each for each in cli("workflows", "list", "--json", url=url, **env).lines
              if each["name"] == name]  # fmt: skip
    return row


# ---- the command line ----


def test_a_start_knows_what_the_modules_register(redis_url: str, module: Module) -> None:
    """No worker has published it: the saga is recorded, and the command states why it waits."""
    name = module("code_start")
    done = cli("start", name, url=redis_url, MULTIAGENTS_IMPORTS=name)
    assert done.code == 0
    assert len(done.out.split()) == 1  # the id alone: what modules print goes to stderr
    assert "a module may talk" in done.err
    assert f"MULTIAGENTS_IMPORTS={name} celery -A multiagents worker" in " ".join(done.err.split())
    saga = cli("show", done.out.strip(), "--json", url=redis_url).json
    assert saga["workflow"] == name


def test_workflows_are_shown_and_listed_likewise(redis_url: str, module: Module) -> None:
    """The output states that they are unpublished and that no worker has their functions."""
    name = module("code_list")
    row = row_of(name, redis_url, MULTIAGENTS_IMPORTS=name)
    assert (row["published"], row["lacks"]) == (None, [f"{name}.do"])
    shown = cli("workflows", "show", name, "--json", url=redis_url, MULTIAGENTS_IMPORTS=name)
    assert shown.json["steps"][0]["worker"] == f"{name}.do"
    text = cli("workflows", "list", url=redis_url, MULTIAGENTS_IMPORTS=name).out
    note = f"not published; no running worker has {name}.do"
    assert "NOTE" in text
    assert note in " ".join(text.split())


def test_a_workflow_that_is_published_otherwise_is_marked(redis_url: str, module: Module) -> None:
    """Listed is what a start from here would take."""
    name = module("code_other")
    older = Workflow(name=name, steps=(Step(name="old", worker=f"{name}.do"),))
    publish(redis_url, f"{name}.do", older)
    row = row_of(name, redis_url, MULTIAGENTS_IMPORTS=name)
    assert (row["steps"], row["published"], row["lacks"]) == (["do"], older.version, [])
    assert row["version"] != older.version
    text = cli("workflows", "list", url=redis_url, MULTIAGENTS_IMPORTS=name).out
    assert "published in another version" in " ".join(text.split())


def test_a_workflow_whose_worker_is_gone_is_marked(redis_url: str) -> None:
    """A definition outlives its worker; the list does not take it for alive."""
    workflow = Workflow(name="code_gone", steps=(Step(name="a", worker="code_gone.a"),))
    catalog = publish(redis_url, "code_gone.a", workflow)
    row = row_of("code_gone", redis_url)
    assert (row["published"], row["lacks"]) == (workflow.version, [])
    edge = Edge(redis_url)
    edge.run(catalog.withdraw("w@host"))
    edge.close()
    assert row_of("code_gone", redis_url)["lacks"] == ["code_gone.a"]
    text = " ".join(cli("workflows", "list", url=redis_url).out.split())
    assert "no running worker has code_gone.a" in text


@pytest.mark.parametrize(
    "words", [("start", "order"), ("workflows", "list"), ("workflows", "show", "x"), ("dev",)]
)
def test_a_module_that_is_not_there_ends_a_command_before_it_asks_a_server(
    words: tuple[str, ...], module: Module
) -> None:
    """One line, exit code 2, without looking for a server; `dev` says first that it starts."""
    module("code_shop")
    done = cli(*words, url=NO_SERVER, MULTIAGENTS_IMPORTS="code_shpo")
    wanted = f"error: MULTIAGENTS_IMPORTS: no module 'code_shpo' in {Path.cwd()}; did you mean"
    begins = ["starting a worker …"] if words == ("dev",) else []
    *before, error = done.err.splitlines()
    assert (done.code, done.out, before) == (2, "", begins)
    assert error.startswith(wanted)


def test_a_folder_that_is_not_there_likewise(tmp_path: Path, monkeypatch: Any) -> None:
    """Of MULTIAGENTS_WORKFLOWS, with the folder that was probably meant."""
    (tmp_path / "flows").mkdir()
    monkeypatch.chdir(tmp_path)
    done = cli("workflows", "list", url=NO_SERVER, MULTIAGENTS_WORKFLOWS="flow")
    assert done.code == 2
    assert done.err.startswith(
        "error: MULTIAGENTS_WORKFLOWS: invalid workflow: flow: is not a folder"
    )
    assert "did you mean 'flows'? Expected one with .json" in done.err


def test_other_commands_import_nothing(redis_url: str) -> None:
    """`list` stays fast, and works while a module does not."""
    assert cli("list", url=redis_url, MULTIAGENTS_IMPORTS="code_nothing").code == 0


# ---- from Python ----


def runtime_of(url: str, **more: Any) -> Runtime:
    settings = Settings(redis_url=url, **more)
    return Runtime(make_app(settings), settings)


def test_a_program_knows_it_too(redis_url: str, module: Module) -> None:
    """``start_saga.delay`` by a name that nothing has published imports the modules, once."""
    name = module("code_python")
    runtime = runtime_of(redis_url, imports=name)
    runtime.start_saga.delay(name, {})
    assert [saga["workflow"] for saga in runtime.call("list")] == [name]


def test_a_program_that_finds_it_published_imports_nothing(redis_url: str, module: Module) -> None:
    """A web process that shares the workers' environment need not have what they import."""
    name = module("code_web")
    workflow = Workflow(name=name, steps=(Step(name="do", worker=f"{name}.do"),))
    publish(redis_url, f"{name}.do", workflow)
    runtime_of(redis_url, imports=f"{name},code_missing").start_saga.delay(name, {})
    assert name not in sys.modules


def test_an_unknown_name_says_which_worker_to_start(redis_url: str) -> None:
    """The error gives the nearest name first, then the worker that would publish it."""
    runtime = runtime_of(redis_url)
    with pytest.raises(UnknownWorkflow) as raised:
        runtime.start_saga.delay("code_unknown_xyz", {})
    text = str(raised.value)
    assert "no worker runs that could publish it" in text
    assert "`MULTIAGENTS_IMPORTS=YOUR_MODULE celery -A multiagents worker`" in text
    assert "`multiagents dev`" in text
    publish(redis_url, "a", Workflow(name="codling_orders", steps=(Step(name="a", worker="a"),)))
    with pytest.raises(UnknownWorkflow, match=r"did you mean codling_orders.*A worker publishes"):
        runtime.start_saga.delay("codling_order", {})


def test_a_worker_that_nobody_has_is_told_in_whole_sentences(redis_url: str) -> None:
    """No ``?.`` and no ``?;``: what was meant, then what to do."""
    known = Workflow(name="code_known", steps=(Step(name="a", worker="code_say"),))
    publish(redis_url, "code_say", known)
    typo = Workflow(name="code_typo", steps=(Step(name="a", worker="code_sya"),))
    with pytest.raises(UnknownWorker) as raised:
        runtime_of(redis_url).start_saga.delay(typo, {})
    wanted = (
        r"worker w@host lacks 'code_sya'; did you mean code_say[^?]*\? Start a worker that has it"
    )
    assert re.search(wanted, str(raised.value))


@pytest.mark.processes
def test_without_any_worker_that_is_all_that_is_told(redis_url: str, tmp_path: Path) -> None:
    """Once, however many functions the workflow needs, with the command that starts one.

    In a process of its own: this one has functions of many tests.
    """
    steps = [{"name": f"s{number}", "worker": f"code_none_{number}"} for number in range(5)]
    file = tmp_path / "code_none.json"
    file.write_text(json.dumps({"name": "code_none", "steps": steps}))
    command = [sys.executable, "-m", "multiagents", "start", str(file)]
    done = subprocess.run(command, env=environment(redis_url), capture_output=True, text=True)
    assert re.fullmatch(
        r"error: workflow 'code_none' cannot run: no worker is running for 'code_none_0',"
        r" 'code_none_1', 'code_none_2', 'code_none_3' and 1 more; start one: `[^`]+`;"
        r" the server asked is .+\n",
        done.stderr,
    )


@pytest.mark.parametrize(
    ("clauses", "message"),
    [
        (("a", "b", "c"), "a; b; c"),
        (("did you mean x?", "start one"), "did you mean x? Start one"),
        (("it failed.", "try again"), "it failed. Try again"),
        (("a", "", "b?", ""), "a; b?"),
        ((), ""),
    ],
)
def test_clauses_become_one_message(clauses: tuple[str, ...], message: str) -> None:
    """After a sentence a new one begins."""
    assert joined(*clauses) == message
