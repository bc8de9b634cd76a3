"""Where does each peer's virtual environment come from?

It is ``bench/.venvs/NAME``, made with venv, and filled by pip from a file of exact pins.  A change
of the pins makes it again.  The machine's own pip configuration names the package index.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

VENVS = Path(__file__).resolve().parent / ".venvs"


def python_of(name: str, requirements: Path) -> Path:
    """The interpreter of a ready environment.  Raises CalledProcessError if pip fails."""
    folder = VENVS / name
    pins = hashlib.sha256(requirements.read_bytes()).hexdigest()
    ready = folder / ".ready"
    python = folder / "bin" / "python"
    if not (ready.exists() and ready.read_text() == pins):
        print(f"{name}: making {folder}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        _call(sys.executable, "-m", "venv", str(folder))
        _call(str(python), "-m", "pip", "install", "-q", *PIP_OPTIONS, "-r", str(requirements))
        ready.write_text(pins)
    return python


PIP_OPTIONS = ("--disable-pip-version-check", "--only-binary", ":all:")
"""Only wheels, so that pip compiles nothing."""


def _call(*command: str) -> None:
    subprocess.run(command, check=True, stdout=sys.stderr)
