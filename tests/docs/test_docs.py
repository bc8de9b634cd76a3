"""Is everything true that README and docs say?"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, get_args

import pytest
import redis

import multiagents
from multiagents.core.entries import Entry
from multiagents.core.settings import Settings
from multiagents.core.states import SagaState, StepState, UndoState
from multiagents.devserver.server import EmbeddedServer
from multiagents.operations.operation import OPERATIONS
from multiagents.saga.diagram import saga_diagram, step_diagram, undo_diagram
from multiagents.testing.stub_lm import StubProvider
from tests.support.page_runner import ELSEWHERE, PageRunner
from tests.support.pages import DIRECTIVES, LANGUAGES, SHELL_SESSIONS, Block, blocks, pages, prose
from tests.support.processes import ROOT, Worker, environment

PAGES = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages()]
RUN_HERE = [param for param in PAGES if param.values[0].name != SHELL_SESSIONS]
ALL = [block for page in pages() for block in blocks(page)]
FILES = [block for block in ALL if block.file]
DATABASES = (11, 12)
"""The sagas of the pages, and those of the pages' own Celery app."""


class Workers(NamedTuple):
    """Where a page's blocks run."""

    folder: Path
    env: dict[str, str]
    app_env: dict[str, str]


@pytest.fixture(scope="module")
def workers(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """One worker with the modules of all pages, and one for the Celery app that they show."""
    folder = tmp_path_factory.mktemp("pages")
    for block in FILES:
        (folder / str(block.file)).write_text(block.text)
    ours, apps = (f"{server.url.rpartition('/')[0]}/{number}" for number in DATABASES)
    for url in (ours, apps):
        with redis.Redis.from_url(url) as client:
            client.flushdb()
    with ExitStack() as stack:
        provider = stack.enter_context(StubProvider())
        env = {
            **provider.environment(),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}",
        }
        modules = ",".join(block.module for block in FILES if block.module)
        started = [
            stack.enter_context(Worker(ours, "-Q", "llm,io", "-c", "2", imports=modules, env=env)),
            stack.enter_context(Worker(apps, "-c", "2", app="billing", env=env)),
        ]
        for worker in started:
            worker.wait_ready()
        yield Workers(folder, environment(ours, **env), environment(apps, **env))


@pytest.mark.processes
@pytest.mark.parametrize("page", RUN_HERE)
def test_everything_on_a_page_works(page: Path, workers: Workers) -> None:
    """Every block of README and docs is run, validated or compared with real output."""
    has_app = any("app" in block.directives for block in blocks(page))
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.page_runner", str(page)],
        cwd=workers.folder,
        env=workers.app_env if has_app else workers.env,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_it_is(page: Path) -> None:
    """Each block has a language and directives that these tests know."""
    found = blocks(page)
    known = (*LANGUAGES, "console") if page.name == SHELL_SESSIONS else LANGUAGES
    assert [block.place for block in found if block.language not in known] == []
    assert [block.place for block in found if block.directives.keys() - set(DIRECTIVES)] == []
    assert page.read_text().count("```") == 2 * len(found)


def test_files_of_the_pages_have_names_of_their_own() -> None:
    """All pages share one folder and one worker."""
    names = [block.file for block in FILES]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("place", sorted(set(ELSEWHERE.values())))
def test_what_is_run_elsewhere_is_run_there(place: str) -> None:
    """A command that no page runs names an existing test."""
    file, _, name = place.partition("::")
    tree = ast.parse((ROOT / file).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("text", "what was never printed"),
        ("sh", "nobody --runs this"),
        ("sh", "multiagents no-such-command"),
        ("json", '{"name": "wrong", "steps": []}'),
        ("python", "assert 1 == 2"),
    ],
)
def test_a_wrong_block_is_found(language: str, text: str) -> None:
    """The page runner reports each wrong block."""
    block = Block(ROOT / "README.md", 1, language, text)
    with pytest.raises((AssertionError, multiagents.InvalidWorkflow)):
        PageRunner().run(block)


# ---- links ----


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link inside the project names an existing file and heading."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    assert [target for target in targets if not _leads_somewhere(page, target)] == []


def _leads_somewhere(page: Path, target: str) -> bool:
    if target.startswith("https://"):
        return True
    name, _, anchor = target.partition("#")
    file = (page.parent / name).resolve() if name else page
    return file.exists() and (not anchor or anchor in _anchors(file))


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


def test_the_lines_of_errors_are_those_of_the_files_shown() -> None:
    """``NonRetryableError: no courier (shop.py:28)`` names the line of the file that is copied."""
    checked, wrong = [], []
    for page in pages():
        own = {block.file: block.text.splitlines() for block in blocks(page) if block.file}
        shown = re.findall(r"Error: ([^()`]+) \((\w+\.py):(\d+)\)", page.read_text())
        for message, name, number in shown:
            raising = [line for line, text in enumerate(own.get(name, ()), 1) if message in text]
            checked += raising
            if raising and int(number) not in raising:
                wrong.append(
                    f"{page.relative_to(ROOT)}: {message} ({name}:{number}), not {raising}"
                )
    assert wrong == []
    assert checked


def test_every_page_can_be_reached_from_the_index() -> None:
    """README links to the index of docs, and the index to each page."""
    index = ROOT / "docs" / "README.md"
    assert "](docs/README.md)" in prose(ROOT / "README.md")
    linked = set(re.findall(r"\]\(([\w-]+/[\w-]+\.md)\)", prose(index)))
    pages_of_docs = {page for page in (ROOT / "docs").rglob("*.md") if page != index}
    assert linked == {str(page.relative_to(index.parent)) for page in pages_of_docs}


def test_each_page_is_of_one_kind() -> None:
    """Each folder of docs is a kind; only the index stands beside the folders."""
    kinds = {page.parent.name for page in (ROOT / "docs").glob("*/*.md")}
    assert kinds == {"tutorial", "how-to", "reference", "explanation"}
    assert [page.name for page in (ROOT / "docs").glob("*.md")] == ["README.md"]


# ---- what the code says itself ----


def test_diagrams_are_drawn_by_the_code() -> None:
    """The diagrams of saga, step and undo follow their tables of moves."""
    drawn = {b.directives.get("made"): b.text for b in ALL if b.language == "mermaid"}
    assert drawn == {"saga": saga_diagram(), "step": step_diagram(), "undo": undo_diagram()}


def test_every_setting_is_documented_with_its_default() -> None:
    """The table of docs/reference/settings.md follows the settings' model."""
    rows = _rows("reference/settings.md", r"MULTIAGENTS_[A-Z_]+")
    defaults = {
        f"MULTIAGENTS_{name.upper()}": _shown(field.default)
        for name, field in Settings.model_fields.items()
    }
    assert rows == defaults


def _rows(page: str, name: str) -> dict[str, str]:
    """The first two columns of the rows whose first column is such a name."""
    found = re.findall(rf"^\| `({name})` \| ([^|]+) \|", (ROOT / "docs" / page).read_text(), re.M)
    return {key: value.strip().strip("`") for key, value in found}


def _shown(default: object) -> str:
    if default is None or default == "":
        return "not set"
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) and default < 1e5 else str(default)


@pytest.mark.parametrize("states", [SagaState, StepState, UndoState], ids=lambda e: e.__name__)
def test_every_state_is_explained(states: type[SagaState | StepState | UndoState]) -> None:
    """Each state that users see is in the tables of docs/explanation/concepts.md."""
    rows = _rows("explanation/concepts.md", r"[a-z]+")
    assert {state.value for state in states} - rows.keys() == set()


def test_the_reference_is_complete() -> None:
    """Each public name, operation, event of a history and state has its place."""
    text = (ROOT / "docs" / "reference" / "api.md").read_text()
    of_steps = [entry.type for entry in get_args(Entry) if hasattr(entry, "kind")]
    of_sagas = [entry.type for entry in get_args(Entry) if not hasattr(entry, "kind")]
    events = {*of_sagas, *(f"{side}_{kind}" for kind in of_steps for side in ("step", "undo"))}
    named = set(re.findall(r"`(\w+)", text))
    wanted = {*multiagents.__all__, *OPERATIONS, *events}
    assert wanted - named == set()


def test_every_rule_is_told() -> None:
    """docs/reference/rules.md has all rules, by number."""
    text = (ROOT / "docs" / "reference" / "rules.md").read_text()
    numbers = re.findall(r"^## (\d+)\. ", text, re.MULTILINE)
    assert list(map(int, numbers)) == list(range(1, len(numbers) + 1))
    assert len(numbers) == 14


def test_examples_import_only_public_names() -> None:
    """Copied code imports only the package, its testing kit, definitions or monitoring."""
    public = (
        "multiagents",
        "multiagents.testing",
        "multiagents.orchestrator.definitions",
        "multiagents.monitoring",
    )
    private = [
        f"{block.place}: {node.module}"
        for block in ALL
        if block.language == "python"
        for node in ast.walk(ast.parse(block.text))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("multiagents")
        and not (node.module or "").startswith(public[1:])
        and node.module != public[0]
    ]
    assert private == []
