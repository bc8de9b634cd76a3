"""Where can a worker's child, or a client, be killed?

A worker imports this module (MULTIAGENTS_IMPORTS).  It records every round trip to Redis that the
main thread of a pool process makes for one saga: calls of the engine, Celery and kombu alike.  A
client names the saga that it starts (`_Recorder.begin`).  A call's name is its kind and its number
of that kind in this saga (``claim.2``), because a fresh child makes some calls that a used one
does not.

For a saga with an id of `Point.saga_id`, SIGKILL ends the process (or the whole worker) before or
after that call.  A file counts the calls of all processes, so each saga causes one kill: its count
never passes there again.
"""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from uuid import uuid4

from celery import signals
from redis.connection import AbstractConnection

from multiagents import storage
from multiagents.storage.scripts import script

LUA = resources.files(storage) / "lua"
NAMES = [name.removesuffix(".lua") for path in LUA.iterdir() if (name := path.name) != "lib.lua"]
SCRIPTS = {script(name).sha: name for name in NAMES}
UNCOUNTED = frozenset({"HELLO", "CLIENT", "PING", "SELECT", "AUTH", "MGET", "EVAL"})
"""What opens a connection (MGET asks for the format of the state) changes nothing: to die there is
to die before the call that follows.
EVAL is a script's second try on a server that did not know it, once in that server's life."""
REPLY_S = 2.0


@dataclass(frozen=True)
class Point:
    """The call before or after which a process dies. ``when`` is "none" for a saga that is only
    recorded.
    """

    scope: str = "child"
    when: str = "none"
    call: str = ""

    def saga_id(self) -> str:
        """An id that contains the point."""
        return f"kill_{self.scope}_{self.when}_{self.call}_{uuid4().hex[:12]}"


def point_of(saga_id: str) -> Point | None:
    """The point that an id contains, if any."""
    head, *rest = saga_id.split("_")
    if head != "kill":
        return None
    scope, when, call, _ = rest
    return Point(scope, when, call)


def calls_file(folder: Path, saga_id: str) -> Path:
    """One line per call of a saga; and, if its point was reached, ``KILL`` and Unix time."""
    return folder / f"calls-{saga_id}"


def calls_of(folder: Path, saga_id: str) -> list[str]:
    """The recorded calls, in order, without the kill."""
    return [line for line in _lines(folder, saga_id) if not line.startswith("KILL")]


def killed_at(folder: Path, saga_id: str) -> float | None:
    """Unix time of the kill; None if the point was not reached."""
    for line in _lines(folder, saga_id):
        if line.startswith("KILL"):
            return float(line.split()[1])
    return None


def _lines(folder: Path, saga_id: str) -> list[str]:
    path = calls_file(folder, saga_id)
    return path.read_text().splitlines() if path.exists() else []


def label(packed: Any) -> str:
    """The name of a packed command or of its script."""
    raw = packed if isinstance(packed, bytes | str) else b"".join(bytes(part) for part in packed)
    words = (raw.encode() if isinstance(raw, str) else raw).split(b"\r\n")[2:8:2]
    texts = [word.decode(errors="replace") for word in words]
    if texts[0] == "EVALSHA":
        return SCRIPTS.get(texts[1], texts[1])
    return texts[0]


class _Recorder:
    """Counts the calls of the saga that this process works for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.saga_id = ""

    def begin(self, saga_id: str) -> None:
        """Let this process work for that saga from now on."""
        self.saga_id = saga_id if point_of(saga_id) else ""

    def send(self, connection: Any, packed: Any, send: Any) -> None:
        """Send a command; die before or after it if this is the point."""
        point = point_of(self.saga_id)
        if point is None or threading.current_thread() is not threading.main_thread():
            send()
            return
        call = self._note_call(label(packed))
        if (point.when, point.call) == ("before", call):
            self._die(point)
        send()
        if (point.when, point.call) == ("after", call):
            connection.can_read(timeout=REPLY_S)  # the server has executed it
            self._die(point)

    def _note_call(self, name: str) -> str:
        """Record a call under its name and number, which is returned."""
        if name in UNCOUNTED:
            return ""
        with calls_file(self.folder, self.saga_id).open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # concurrent children count each call once
            file.seek(0)
            call = f"{name}.{sum(line.split('.')[0] == name for line in file) + 1}"
            file.write(f"{call}\n")
        return call

    def _die(self, point: Point) -> None:
        with calls_file(self.folder, self.saga_id).open("a") as file:
            file.write(f"KILL {time.time()}\n")
        if point.scope == "group":
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def install(folder: Path) -> _Recorder:
    """Put a recorder under every Redis connection of this process and its children."""
    recorder = _Recorder(folder)
    inner = AbstractConnection.send_packed_command

    def send_packed_command(self: Any, command: Any, check_health: bool = True) -> None:
        def send() -> None:
            inner(self, command, check_health)

        recorder.send(self, command, send)

    AbstractConnection.send_packed_command = send_packed_command  # type: ignore[method-assign]

    @signals.task_prerun.connect(weak=False)
    def begin(args: Any = (), kwargs: Any = None, **_: Any) -> None:
        saga_id = (kwargs or {}).get("saga_id") or (args[0] if args else "")
        recorder.begin(saga_id if isinstance(saga_id, str) else "")

    return recorder


recorder = install(Path(os.environ["KILL_DIR"])) if "KILL_DIR" in os.environ else None
