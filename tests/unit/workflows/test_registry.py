"""Which content does a workflow's name have in a process, and which was never registered?"""

from __future__ import annotations

import gc
import importlib
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import structlog

from multiagents import (
    InvalidWorkflow,
    Orchestrator,
    UnknownWorkflow,
    Workflow,
    WorkflowBuilder,
    register,
    start_saga,
)
from multiagents.core.settings import Settings
from multiagents.hosting import start_log
from multiagents.testing.lab import SagaLab, eager
from multiagents.workflows import registry
from multiagents.workflows.user_code import register_files
from tests.support import basic_workers  # noqa: F401 - registers "echo" and others

HERE = f"tests/unit/workflows/{Path(__file__).name}"
NAME = "registry_test"
Write = Callable[[str, str], ModuleType]


def built(*steps: str, name: str = NAME) -> Workflow:
    builder = WorkflowBuilder(name)
    for step in steps:
        builder.add_step(step, "echo")
    return builder.build()


@pytest.fixture(autouse=True)
def only_its_own() -> Iterator[None]:
    """Remove what a test registers."""
    before = set(registry.registered())
    yield
    for name in set(registry.registered()) - before:
        registry.forget(name)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a module, and import it, or read it again."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(name: str, text: str) -> ModuleType:
        head = "from multiagents import WorkflowBuilder\n"
        (tmp_path / f"{name}.py").write_text(head + textwrap.dedent(text))
        importlib.invalidate_caches()
        known = sys.modules.get(name)
        return importlib.import_module(name) if known is None else importlib.reload(known)

    return write


REGISTERED = 'order = WorkflowBuilder("registry_test").add_step("{step}", "echo").build()\n'


def test_another_content_under_a_name_is_refused_with_both_places() -> None:
    """The error prevents a start of either one by chance."""
    built("a").register()
    with pytest.raises(InvalidWorkflow) as raised:
        register(built("b"))
    places = rf"{HERE}:(\d+) and {HERE}:(\d+)"
    found = re.search(places, str(raised.value))
    assert found is not None
    assert int(found[2]) == int(found[1]) + 2
    assert "replace=True" in str(raised.value)
    assert registry.registered()[NAME].names == ("a",)


def test_the_same_content_again_is_welcome() -> None:
    """A module may be imported twice, also as ``__main__``, and a factory called twice."""
    first, second = built("a").register(), built("a").register()
    assert registry.find(NAME) is second
    assert first == second


def test_replace_gives_a_name_another_content() -> None:
    """Both ways of registration take `replace`."""
    built("a").register()
    assert built("b").register(replace=True).names == ("b",)
    assert register(built("c"), replace=True) is registry.find(NAME)


def test_a_module_that_is_read_again_replaces_its_own(write: Write) -> None:
    """Autoreload works after any change to the file, also of its lines."""
    write("registry_reload", REGISTERED.format(step="a") + "order.register()\n")
    write("registry_reload", "\n\n" + REGISTERED.format(step="b") + "order.register()\n")
    assert registry.registered()[NAME].names == ("b",)


def test_a_cell_of_a_notebook_replaces_what_another_has_registered() -> None:
    """Each cell, and a console, has a file name without a file."""
    head = "from multiagents import WorkflowBuilder\n"
    for name, step in (("/tmp/ipykernel_1/1.py", "a"), ("/tmp/ipykernel_1/2.py", "b")):
        text = head + REGISTERED.format(step=step) + "order.register()\n"
        exec(compile(text, name, "exec"), {})
    assert registry.registered()[NAME].names == ("b",)


def test_one_module_cannot_register_two_under_one_name(write: Write) -> None:
    """The usual cause is a copied line."""
    twice = REGISTERED.format(step="a").replace("build()", "build().register()")
    twice += REGISTERED.format(step="b").replace("build()", "build().register()")
    with pytest.raises(InvalidWorkflow, match=r"registry_twice.py:2 and registry_twice.py:3"):
        write("registry_twice", twice)


def test_two_modules_cannot_either(write: Write) -> None:
    """The error names both files."""
    write("registry_one", REGISTERED.format(step="a") + "order.register()\n")
    with pytest.raises(InvalidWorkflow, match=r"registry_one.py:3 and registry_other.py:3"):
        write("registry_other", REGISTERED.format(step="b") + "order.register()\n")


def test_a_definition_file_counts_like_code(tmp_path: Path) -> None:
    """Code under the same name refuses it; a changed file replaces itself."""
    folder = tmp_path / "flows"
    folder.mkdir()
    settings = Settings(workflows=folder)

    def write(step: str) -> None:
        text = f"name: {NAME}\nsteps:\n  - {{name: {step}, worker: echo}}\n"
        (folder / "order.yaml").write_text(text)

    write("a")
    register_files(settings)
    write("b")
    register_files(settings)
    assert registry.registered()[NAME].names == ("b",)
    with pytest.raises(InvalidWorkflow, match=rf"order.yaml:1 and {HERE}"):
        built("c").register()
    registry.forget(NAME)
    built("c").register()
    with pytest.raises(InvalidWorkflow, match=rf"MULTIAGENTS_WORKFLOWS: .*{HERE}.*order.yaml:1"):
        register_files(settings)


def test_a_test_may_register_anew(saga_lab: SagaLab) -> None:
    """Within ``saga_lab`` a name is free, and the test's own content runs."""
    for step in ("a", "b"):
        built(step).register()
        saga_lab.assert_path(saga_lab.start(NAME, {}), step)


def test_what_was_registered_before_a_lab_is_there_after_it() -> None:
    """Names first registered by an import within the lab stay, too."""
    from multiagents.hosting.runtime import runtime

    before = built("a").register()
    with eager(runtime):
        built("b").register()
        built("c").register(replace=True)
        new = built("n", name=f"{NAME}_new").register()
    assert registry.find(NAME) is before
    assert registry.find(f"{NAME}_new") is new


def test_an_orchestrator_brings_its_own() -> None:
    """An orchestrator runs its own workflow, whatever the name meant before."""
    built("a").register()
    mine = built("b")
    assert Orchestrator(mine).workflow is registry.find(NAME) is mine


# ---- built, and never registered ----


def test_a_forgotten_register_is_named_where_the_name_is_asked_for(saga_lab: SagaLab) -> None:
    """The error has the build's file and line, and says what to do."""
    forgotten = built("a")
    line = built.__code__.co_firstlineno
    wanted = rf"'{NAME}'; it is built \({HERE}:{line + 4}\) but not registered: call .register"
    with pytest.raises(UnknownWorkflow, match=wanted):
        start_saga.delay(NAME, {})
    forgotten.register()
    assert start_saga.delay(NAME, {}).successful()


def test_what_is_gone_is_not_remembered(saga_lab: SagaLab) -> None:
    """A long-lived process does not collect its builds."""
    gc.collect()
    many = len(registry._built)
    for _ in range(10):
        built("a", name="registry_gone")
    gc.collect()
    assert len(registry._built) == many
    with pytest.raises(UnknownWorkflow, match=r"unknown workflow 'registry_gone'; (did|known)"):
        start_saga.delay("registry_gone", {})


def test_a_starting_worker_names_what_its_modules_forgot(write: Write) -> None:
    """Only what a module holds after its import counts, not what functions build."""
    kept = [built("a")]
    factory = "def make():\n    return {0}\nmine = make()\n"
    text = factory.format(REGISTERED.format(step="a").partition(" = ")[2].strip())
    module = write("registry_forgot", text)
    with structlog.testing.capture_logs() as said:
        start_log.warn_of_forgotten()
    events = [line["event"] for line in said if NAME in line["event"]]
    assert events == [f"workflow '{NAME}' is built but not registered (registry_forgot.py:3)"]
    module.mine.register()
    with structlog.testing.capture_logs() as said:
        start_log.warn_of_forgotten()
    assert not [line for line in said if NAME in line["event"]]
    assert kept


# ---- begun, and never built ----


def test_a_forgotten_build_is_said_so() -> None:
    """A workflow's attribute on a builder suggests `build`; other names are plain mistakes."""
    builder = WorkflowBuilder(NAME).add_step("a", "echo")
    with pytest.raises(AttributeError, match=r"no attribute 'register'; call \.build\(\) first"):
        builder.register()
    with pytest.raises(AttributeError, match=r"no attribute 'add_stop'$"):
        builder.add_stop("b", "echo")


def test_a_forgotten_build_is_named_where_the_name_is_asked_for(saga_lab: SagaLab) -> None:
    """The error has the builder's file and line, and says what to do."""
    name = "registry_begun"
    begun = WorkflowBuilder(name).add_step("a", "echo")
    with pytest.raises(
        UnknownWorkflow,
        match=rf"its builder \({HERE}:\d+\) is not built: call \.build\(\)\.register\(\)",
    ):
        start_saga.delay(name, {})
    begun.build().register()
    assert start_saga.delay(name, {}).successful()


def test_a_starting_worker_names_what_is_never_built(write: Write) -> None:
    """It names them like unregistered ones; a failed build has its own error."""
    name = "registry_unbuilt"
    text = f"from multiagents import WorkflowBuilder\nmine = WorkflowBuilder({name!r})\n"
    module = write("registry_unbuilt", text)
    with structlog.testing.capture_logs() as said:
        start_log.warn_of_forgotten()
    events = [line["event"] for line in said if name in line["event"]]
    assert events == [f"the builder of workflow '{name}' is never built (registry_unbuilt.py:3)"]
    with pytest.raises(InvalidWorkflow):
        module.mine.build()
    with structlog.testing.capture_logs() as said:
        start_log.warn_of_forgotten()
    assert not [line for line in said if name in line["event"]]
