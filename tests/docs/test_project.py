"""Is the project sound as a whole: its wheel, pins, make commands and services?"""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.pages import blocks
from tests.support.processes import ROOT, environment

SERVICES = ("redis", "worker-llm", "worker-io", "flower")
HEAVY = ("dspy", "celery", "fastapi", "rich", "typer", "fakeredis")


def run(*command: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names in a wheel built from this tree."""
    out = tmp_path_factory.mktemp("dist")
    built = run("-m", "build", "--wheel", "--no-isolation", "--outdir", str(out))
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


@pytest.fixture(scope="session")
def services() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"])


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", ["constraints.txt", "requirements.txt"])
def test_pinned_packages_name_no_address(name: str) -> None:
    """Each installation chooses the source of its packages."""
    assert not re.findall(r"https?://|--\w*index|--find-links", (ROOT / name).read_text())


def test_constraints_pin_every_dependency() -> None:
    """An installation with make gets one version of each dependency in pyproject.toml."""
    declared = re.findall(r'^  "([A-Za-z][\w-]*)[^"]*[<>=]=?\d[^"]*",', _pyproject(), re.MULTILINE)
    text = (ROOT / "constraints.txt").read_text()
    pinned = set(re.findall(r"^([\w.-]+)==", text, re.MULTILINE))
    assert len(declared) > 20
    assert {name.lower() for name in declared} <= pinned


def _pyproject() -> str:
    return (ROOT / "pyproject.toml").read_text()


def test_the_wheel_has_scripts_and_types(wheel: list[str]) -> None:
    """The wheel has every Lua file of the tree and the marker of a typed package."""
    scripts = {str(path.relative_to(ROOT)) for path in (ROOT / "multiagents").rglob("*.lua")}
    assert scripts
    assert scripts | {"multiagents/py.typed"} <= set(wheel)


def test_the_wheel_has_the_package_alone(wheel: list[str]) -> None:
    """The wheel omits example workers, examples, tests and configuration."""
    tops = {name.split("/")[0] for name in wheel if ".dist-info/" not in name}
    assert tops == {"multiagents"}
    assert not [name for name in wheel if "__pycache__" in name]


def test_importing_the_package_is_cheap() -> None:
    """``import multiagents`` loads none of the heavy packages, and connects to nothing."""
    code = f"import sys, multiagents; print([m for m in {HEAVY} if m in sys.modules])"
    reply = run("-c", code)
    assert (reply.stdout.strip(), reply.stderr) == ("[]", "")


def test_every_make_command_of_the_readme_exists() -> None:
    """The README shows ``make demo`` and ``make test``, and only existing commands."""
    shown = set(re.findall(r"\bmake ([a-z]+)\b", _commands(ROOT / "README.md")))
    assert {"demo", "test"} <= shown <= targets()


def test_every_make_command_of_the_contributing_guide_exists() -> None:
    """Each command of CONTRIBUTING.md exists, and CI runs `make check`."""
    shown = set(re.findall(r"\bmake ([a-z]+)\b", _commands(ROOT / "CONTRIBUTING.md")))
    assert {"setup", "test", "check"} <= shown <= targets()
    assert "make check" in (ROOT / ".ci" / "run").read_text()
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100


def test_a_page_activates_its_environment_before_it_uses_it() -> None:
    """A reader never meets `multiagents: command not found`."""
    for name in ("README.md", "docs/tutorial/quickstart.md"):
        shell = "".join(each.text for each in blocks(ROOT / name) if each.language == "sh")
        used = re.search(r"^(?:[A-Z_]+=\S+ )*(?:multiagents|celery|python|pytest)\b.*", shell, re.M)
        assert used is not None, name
        assert "source .venv/bin/activate\n" in shell[: used.start()], f"{name}: {used.group()}"


def test_the_extra_for_tests_has_what_the_quickstart_uses() -> None:
    """`FOLDER[testing]` brings pytest and the fixtures' packages before their first use."""
    quickstart = (ROOT / "docs" / "tutorial" / "quickstart.md").read_text()
    assert "pip install 'FOLDER[testing]'" in quickstart[: quickstart.index("## 1.")]
    (extra,) = re.findall(r"^testing = \[(.*)\]$", _pyproject(), re.MULTILINE)
    asked = {re.split(r"[\[>]", name)[0] for name in re.findall(r'"([^"]+)"', extra)}
    assert {"pytest", "pytest-asyncio", "fakeredis"} <= asked


def _commands(page: Path) -> str:
    """The code that a page shows, in blocks and in lines."""
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", page.read_text(), re.DOTALL))


def test_the_composed_services_have_their_names(services: dict[str, Any]) -> None:
    """Scripts and documentation use these four names."""
    assert tuple(services) == SERVICES


@pytest.mark.parametrize("name", SERVICES)
def test_every_composed_service_has_a_health_check(services: dict[str, Any], name: str) -> None:
    """Each has a check, an interval and a timeout."""
    assert {"test", "interval", "timeout", "retries"} <= set(services[name]["healthcheck"])


@pytest.mark.parametrize(("name", "queue"), [("worker-llm", "llm"), ("worker-io", "io")])
def test_a_composed_worker_serves_its_queue_and_checks_itself(
    services: dict[str, Any], name: str, queue: str
) -> None:
    """The health check asks the node that the command starts."""
    service = services[name]
    assert f"worker -Q {queue} -n {queue}@%h" in service["command"]
    assert f"inspect ping -d {queue}@$$(hostname)" in service["healthcheck"]["test"][1]
    assert service["depends_on"] == {"redis": {"condition": "service_healthy"}}


def test_nothing_composed_is_reachable_from_outside(services: dict[str, Any]) -> None:
    """Published ports are on 127.0.0.1, because the servers have no password."""
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_image_copies_only_what_exists() -> None:
    """Each COPY has a source in the tree that .dockerignore lets through."""
    copies = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    sources = {name.removeprefix("./") for line in copies for name in line.split()}
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"
    }
    assert sources == allowed
    assert [name for name in sources if not (ROOT / name).exists()] == []


class TestRunExamples:
    def test_modules_with_an_async_main_are_examples(self, tmp_path: Path) -> None:
        """The runner reads modules without an import, and skips others."""
        (tmp_path / "b.py").write_text("raise SystemExit\nasync def main(): ...\n")
        (tmp_path / "a.py").write_text("async def main(): ...\n")
        (tmp_path / "plain.py").write_text("def main(): ...\n")
        (tmp_path / "inner.py").write_text("class A:\n    async def main(self): ...\n")
        (tmp_path / "c").mkdir()
        (tmp_path / "c" / "main.py").write_text("async def main(): ...\n")
        code = "import sys, pathlib, run_examples as r; print(r.find_examples(pathlib.Path({!r})))"
        reply = run("-c", code.format(str(tmp_path)))
        assert reply.stdout.strip() == "['a', 'b', 'c']", reply.stderr

    def test_an_unknown_name_is_wrong_use(self) -> None:
        """Exit code 2 and one line on stderr that names it."""
        reply = run("run_examples.py", "nothing", env=environment("redis://127.0.0.1:1/0"))
        assert (reply.returncode, reply.stderr.count("\n")) == (2, 1)
        assert "unknown example: nothing; known: " in reply.stderr


def test_one_process_runs_all_tests_of_a_file(request: pytest.FixtureRequest) -> None:
    """xdist finds the file's group in the test's id, so module fixtures are made once."""
    by_group = request.config.getoption("loadgroup", False)
    assert request.node.nodeid.endswith("@tests/docs/test_project.py") == by_group
