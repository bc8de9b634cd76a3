"""What does `dev` print when all is ready, and which changed files does it name?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from multiagents.cli.dev.greeting import DevServer, block, start_command
from multiagents.cli.dev.process import Wish
from multiagents.cli.dev.report import WorkerReport
from multiagents.cli.source_files import SourceFiles, flaw_of, shown


def report(**more: Any) -> WorkerReport:
    given: dict[str, Any] = {"slots": 2, "queues": ("io",), **more}
    return WorkerReport(**given)


def told(found: WorkerReport, url: str = "redis://127.0.0.1:6379/0") -> list[str]:
    place = DevServer(url, Path.cwd() / ".multiagents")
    return block(place, Wish({}), found, stub=True, seconds=1.23).splitlines()


def test_the_first_example_of_the_first_workflow_that_has_one_is_started() -> None:
    """The order is that of the user's module, and the example is quoted for a shell."""
    workflows = {"bare": [], "trip": [{"city": "Oslo's"}, {"city": "Rome"}], "art": [{"x": 1}]}
    command = start_command(report(workflows=workflows), "multiagents")
    assert command == """multiagents start trip --input '{"city": "Oslo'"'"'s"}' --wait"""


def test_a_long_command_is_broken_where_a_shell_goes_on() -> None:
    """The user can copy the whole command."""
    first, second = start_command(report(workflows={"trip": [{"x": "y" * 50}]}), "ma").split("\n")
    assert first == "ma start trip \\"
    assert second.startswith("  --input ")


def test_no_line_of_the_block_is_wider_than_a_terminal() -> None:
    """Each command to copy has its own line."""
    names = tuple(f"shop.function_number_{n}" for n in range(20))
    lines = told(report(functions=names, workflows={"order": [{"sku": "A1"}]}))
    facts = lines[: lines.index("In another terminal:")]
    assert max(map(len, facts)) <= 80
    assert "functions  shop.function_number_0," in facts[4]
    assert any("and 12 more" in line for line in facts)
    assert lines[-1] == "Ctrl-C stops the server and the worker."
    assert not any("export" in line for line in lines)
    assert any(
        "export MULTIAGENTS_REDIS_URL=redis://h:7/0" in line
        for line in told(report(), "redis://h:7/0")
    )


def test_the_last_line_says_what_ctrl_c_really_stops() -> None:
    """The line omits another `dev`'s server and a server from the environment."""
    own, ends = Path.cwd() / ".multiagents", {}
    for name, place in (
        ("joined", DevServer("redis://h:7/0", own, joined=True)),
        ("named", DevServer("redis://h:7/0", None)),
    ):
        lines = block(place, Wish({}), report(), stub=False, seconds=1).splitlines()
        ends[name] = lines[-1]
        assert ("of another dev here, data in .multiagents" in lines[2]) == (name == "joined")
    assert ends == {
        "joined": "Ctrl-C stops this worker; the server goes on as long as another dev here uses"
        " it.",
        "named": "Ctrl-C stops the worker; the server keeps running.",
    }


def test_without_functions_it_says_what_to_set() -> None:
    """A worker without functions does nothing, so `dev` says what to set."""
    assert any("in MULTIAGENTS_IMPORTS" in line for line in told(report()))


def test_changed_files_are_named_once(tmp_path: Path) -> None:
    """An editor's replacement is one change, and a deleted file is none yet."""
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_text("x = 1\n")
    two.write_text("x = 1\n")
    files = SourceFiles([str(one), str(two)])
    assert files.changed() == []
    one.write_text("x = 22\n")
    assert files.changed() == [str(one)]
    assert files.changed() == []
    two.unlink()
    assert files.changed() == []
    two.write_text("x = 333\n")
    assert files.changed() == [str(two)]


def test_after_a_failure_modules_beside_are_looked_at_too(tmp_path: Path) -> None:
    """The broken module may never have been imported before."""
    (tmp_path / "shop.py").write_text("import prices\n")
    (tmp_path / "prices.py").write_text("x = 1 / 0\n")
    files = SourceFiles([str(tmp_path / "shop.py")]).wider()
    (tmp_path / "prices.py").write_text("x = 1 / 2\n ")
    assert files.changed() == [str(tmp_path / "prices.py")]


@pytest.mark.parametrize(
    ("name", "text", "flaw"),
    [
        ("shop.py", "x = (\n", "shop.py:1: SyntaxError: '(' was never closed"),
        ("shop.py", "x = 1\n", ""),
        ("order.yaml", "name: order\n", "order.yaml: order: has no steps"),
        ("order.json", "{", "order.json: cannot be read"),
    ],
)
def test_what_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, flaw: str
) -> None:
    """`dev` names the file and line before it stops a worker."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(text)
    found = flaw_of([str(tmp_path / name)])
    assert flaw in found
    assert bool(found) == bool(flaw)


def test_few_names_are_listed_and_many_counted() -> None:
    """Many names stay on one line."""
    assert shown(["/a/one.py"]) == "/a/one.py has"
    assert shown(["/a/one.py", "/a/two.py"]) == "/a/one.py, /a/two.py have"
    assert shown([f"/a/{n}.py" for n in range(5)]) == "/a/0.py and 4 other files have"
