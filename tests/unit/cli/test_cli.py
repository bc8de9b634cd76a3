"""What do the command line's words, errors and exit codes promise without a server?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from multiagents import __version__
from multiagents.cli.errors import masked
from multiagents.cli.render import seconds, step_line
from tests.support.command_line import NO_SERVER, cli
from tests.support.processes import environment

GOOD = {"name": "order", "steps": [{"name": "charge", "worker": "charge_card"}]}
BAD = {"name": "order", "steps": [{"name": "a", "worker": "w", "depends_on": ["nobody"]}]}
COMMANDS = [
    "dev",
    "demo",
    "start",
    "list",
    "show",
    "watch",
    "history",
    "pause",
    "resume",
    "cancel",
    "workers",
    "doctor",
    "bench",
    "workflows",
]


def write(path: Path, data: Any) -> str:
    path.write_text(json.dumps(data))
    return str(path)


def test_the_version_is_told() -> None:
    """`--version` names the package and its version."""
    assert cli("--version").out == f"multiagents {__version__}\n"


def test_help_names_every_command_with_an_example() -> None:
    """The help hides no command, and each command shows an example call."""
    overview = cli("--help").out
    assert [name for name in COMMANDS if name not in overview] == []
    for name in COMMANDS[:-1]:
        assert f"Example: multiagents {name}" in " ".join(cli(name, "--help").out.split()) or (
            name == "dev" and "multiagents dev" in cli(name, "--help").out
        )
        assert "--json" in cli(name, "--help").out


@pytest.mark.parametrize("name", ["list", "show", "validate"])
def test_help_of_workflows_shows_examples(name: str) -> None:
    """The group's commands show example calls, too."""
    assert f"Example: multiagents workflows {name}" in cli("workflows", name, "--help").out


def test_python_m_multiagents_is_the_same_command() -> None:
    """The module works where no script is installed, and loads neither Celery nor rich."""
    code = (
        "import sys; sys.argv = ['multiagents', '--version']\n"
        "import runpy\n"
        "try: runpy.run_module('multiagents', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "slow = {'celery', 'redis', 'dspy', 'multiagents.hosting.runtime'} & sys.modules.keys()\n"
        "assert not slow, slow"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(NO_SERVER), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"multiagents {__version__}\n"), done.stderr


def test_importing_the_package_imports_nothing_slow() -> None:
    """`import multiagents` loads neither the command line nor Celery."""
    code = (
        "import multiagents, sys; slow = {'typer', 'rich', 'celery', 'dspy'} & sys.modules.keys();"
        "assert not slow, slow"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(NO_SERVER))
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("nope",), "No such command 'nope'"),
        (("show",), "Missing argument 'ID'"),
        (("list", "--limit", "0"), "Invalid value for '--limit'"),
        (("list", "--state", "sleeping"), "'sleeping' is not one of"),
        (("start", "order", "--input", "{"), "--input is not JSON"),
        (("start", "order", "--input", "in.json"), "is named after @: --input @in.json"),
        (("start", "order", "--input", "pyproject.toml"), "named after @: --input @pyproject.toml"),
        (("start", "order", "--input", "[1]"), "--input is an array; expected a JSON object"),
        (("start", "order", "--input", "@nowhere.json"), "cannot read the input file"),
        (("start", "order", "--timeout", "3"), "--timeout is for --wait"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(words: tuple[str, ...], expected: str) -> None:
    """A mistake of the user is one line on stderr, with nothing on stdout."""
    done = cli(*words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert expected in done.err
    assert done.err.count("\n") == 1


def test_an_input_on_stdin_is_named_in_errors() -> None:
    """`--input -` reads stdin, and errors name it."""
    assert "the input on stdin is null" in cli("start", "order", "-i", "-", stdin="null").err


def test_without_a_command_the_help_is_shown() -> None:
    """`multiagents` alone is wrong use and shows the help."""
    done = cli()
    assert done.code == 2
    assert "Commands" in done.out + done.err


@pytest.mark.parametrize(
    "words",
    [
        ("list",),
        ("show", "x"),
        ("watch", "x"),
        ("history", "x"),
        ("cancel", "x"),
        ("start", "order"),
        ("workers",),
        ("workflows", "list"),
    ],
)
def test_an_unreachable_server_is_one_line_with_a_way_out(words: tuple[str, ...]) -> None:
    """The line names the URL without its password, and says what to do."""
    done = cli(*words, "--json", url="redis://me:s3cret@127.0.0.1:1/0")
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "error: cannot reach the server at redis://***@127.0.0.1:1/0 (connection refused); set"
        " MULTIAGENTS_REDIS_URL to a running one, or start one with `multiagents dev`\n"
    )


@pytest.mark.parametrize(
    "url", ["redis://:s3/cret@127.0.0.1:1/0", "http://s3cret", "redis://h:s3cret", "s3cret"]
)
def test_a_bad_url_never_shows_its_password(url: str) -> None:
    """Parsers quote what they cannot read; our error hides the password."""
    done = cli("list", url=url)
    assert done.code == 2
    assert "MULTIAGENTS_REDIS_URL" in done.err
    assert "s3" not in done.err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://u:p@h:1/0", "redis://***@h:1/0"),
        ("rediss://:a@b@h/0 is away", "rediss://***@h/0 is away"),
        ("redis://h/0?password=p&db=1", "redis://h/0?password=***&db=1"),
        ("redis://h:1/0", "redis://h:1/0"),
        ("mail me@home", "mail me@home"),
    ],
)
def test_masking_hides_passwords_and_nothing_else(text: str, expected: str) -> None:
    """A password with an @ in it is hidden whole, and the host stays readable."""
    assert masked(text) == expected


def test_a_bad_setting_is_named() -> None:
    """A wrong setting is wrong use, and the error names its variable."""
    done = cli("list", MULTIAGENTS_LEASE_S="soon")
    assert done.code == 2
    assert "MULTIAGENTS_LEASE_S" in done.err


def test_debug_shows_the_traceback_wherever_it_stands() -> None:
    """`--debug` shows the traceback at any position; without it there is none."""
    assert "Traceback" not in cli("list").err
    for words in (("--debug", "list"), ("list", "--debug")):
        done = cli(*words)
        assert "Traceback" in done.err
        assert done.err.splitlines()[-1].startswith("error: cannot reach")
        assert done.code == 2


def test_validate_accepts_good_files_without_a_server(tmp_path: Path) -> None:
    """`validate` takes JSON and YAML, files and folders, and exits with 0."""
    write(tmp_path / "order.json", GOOD)
    (tmp_path / "mail.yaml").write_text("name: mail\nsteps: [{name: send, worker: send_mail}]\n")
    done = cli("workflows", "validate", str(tmp_path), "--json")
    assert done.code == 0
    assert [(line["name"], line["ok"], line["errors"]) for line in done.lines] == [
        ("mail", True, []),
        ("order", True, []),
    ]


def test_validate_lists_all_mistakes_of_all_files(tmp_path: Path) -> None:
    """One bad file among several gives exit code 2; each mistake has its place."""
    good, bad = write(tmp_path / "good.json", GOOD), write(tmp_path / "bad.json", BAD)
    missing = str(tmp_path / "none.json")
    done = cli("workflows", "validate", good, bad, missing)
    assert done.code == 2
    assert f"{good}: ok, workflow 'order'" in done.out
    assert "bad.json" in done.out
    assert "nobody" in done.out
    assert "none.json" in done.out


def test_elapsed_time_is_read_by_people() -> None:
    """Durations are shown in seconds, then minutes, then hours."""
    assert [seconds(0, ms) for ms in (400, 59_900, 61_000, 3_723_000)] == [
        "0.4 s",
        "59.9 s",
        "1:01",
        "1 h 02 min",
    ]
    assert seconds(None, 5) is None


def test_a_change_of_a_step_is_one_line() -> None:
    """The line has state, attempt, progress, note and undo, where they exist."""
    step = {
        "state": "running",
        "attempts": 2,
        "progress": {"progress": 0.4, "note": "page 4/10"},
        "compensation": {"state": "retrying", "attempts": 1, "error": None},
    }
    assert step_line("read", step) == "read running (attempt 2) 40% page 4/10 undo: retrying"
