"""Where does a Redis-compatible server come from when none runs?

`EmbeddedServer` runs the binary that `locate` finds, for one data directory.  Rules:

- It listens on 127.0.0.1 only and keeps an append-only file in its data directory.
- A data directory has at most one server.  The server process itself holds ``server.lock``
  (inherited at its start), so the kernel shows whether it is alive, whatever process started it.
- Every user holds ``users.lock`` shared.  Later users join, and the last one to leave stops the
  server: after a ``with`` block, an exception, or the end of Python (atexit).
- An owner that dies without unwinding (SIGKILL, SIGTERM without a handler) leaves the server
  running.  Its locks are gone, so the next start on that data directory takes the server over
  and stops it at its own end.  PR_SET_PDEATHSIG is no help: it fires when the *thread* that
  started the server ends.

POSIX only (flock).
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self
from weakref import WeakSet

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from multiagents.core.exceptions import InvalidInput, NoServer
from multiagents.core.interrupts import held_back
from multiagents.core.polling import until
from multiagents.core.settings import get_settings
from multiagents.devserver.binary import ServerBinary, locate
from multiagents.devserver.ports import HOST, PortTaken, free_port, refuse_taken
from multiagents.storage.file_lock import FileLock

__all__ = ["EmbeddedServer", "PortTaken", "ServerBinary", "locate"]

APPENDFSYNC = ("always", "everysec", "no")
START_S = 10.0
"""The time after its start within which a server must answer."""
LOAD_S = 300.0
"""The time that it may then take to read its append-only file."""
STOP_S = 5.0
"""The time for each way to stop it (SHUTDOWN, SIGTERM, SIGKILL)."""
GATE_S = 30.0
"""The longest wait for another process that starts or stops the same server."""
PORT_TRIES = 5
"""Another program may take a free port before the server binds it."""
LOG_LINES = 15


class EmbeddedServer:
    """The server of one data directory, while it is in use.

    ``port=0`` takes a free one.  Raises NoServer if there is no binary or it does not start.
    PortTaken is a subclass of it.

        with EmbeddedServer(Path(".multiagents")) as server:
            client = redis.Redis.from_url(server.url)
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        port: int = 0,
        *,
        appendfsync: str = "everysec",
        binary: ServerBinary | None = None,
    ) -> None:
        if appendfsync not in APPENDFSYNC:
            raise InvalidInput(f"appendfsync={appendfsync!r}; expected one of {APPENDFSYNC}")
        self.data_dir = (data_dir or get_settings().data_dir).resolve()
        self.port = port
        self.appendfsync = appendfsync
        self._binary = binary
        self._wanted_port = port
        self._pid: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._users: FileLock | None = None
        self.is_shared = False
        """Whether other users had it at this start or, after the stop, still have it."""

    @property
    def is_running(self) -> bool:
        """Whether its process is alive; False before the start and after the stop."""
        if self._process is not None:
            return self._process.poll() is None
        with suppress(ProcessLookupError, NoServer):
            os.kill(self.pid, 0)
            return True
        return False

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    @property
    def pid(self) -> int:
        """The server's process.  Raises NoServer before the start and after the stop."""
        if self._pid is None:
            raise NoServer(f"the embedded server of {self.data_dir} is not started; call start()")
        return self._pid

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Start the server, join the one that others use, or take over a left-over one."""
        if self._users is not None:
            return self
        if self._wanted_port and not self.data_dir.exists():
            refuse_taken(self._wanted_port)  # before any file is written
        if not self.data_dir.is_dir():
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.data_dir / ".gitignore").write_text("*\n")
        with self._gate():
            users = FileLock(self.data_dir / "users.lock")
            try:
                alone = users.own()
                self._join_or_spawn(alone=alone)
                self.is_shared = not alone
                users.share()
                self._users = users
            except BaseException:
                self._users = None
                users.close()
                self._abandon()
                raise
        _IN_USE.add(self)
        atexit.register(self.stop)
        return self

    def stop(self) -> None:
        """Leave the server, and stop it unless others use it; a second call does nothing."""
        if self._users is None:
            return
        with self._gate():
            users, self._users = self._users, None
            try:
                self.is_shared = not users.own()
                if self.is_shared:
                    self._disown()
                else:
                    self._end()
            finally:
                users.close()
        self._pid = self._process = None
        _IN_USE.discard(self)
        atexit.unregister(self.stop)

    def kill(self) -> None:
        """Kill the server with SIGKILL, as a crash of its host would; `restart` brings it back."""
        self._signal(signal.SIGKILL)
        if not until(lambda: not self._lives(), STOP_S):
            raise NoServer(f"the server of {self.data_dir} (pid {self.pid}) does not end")

    def restart(self) -> None:
        """Start the server again on the same port and data, after stopping it if it runs."""
        with self._gate():
            self._end()
            self._spawn(self.port)

    # -- one server per data directory

    @contextmanager
    def _gate(self) -> Iterator[None]:
        """One process at a time starts or stops the server of a data directory."""
        gate = FileLock(self.data_dir / "start.lock")
        try:
            if not until(gate.own, GATE_S):
                raise NoServer(
                    f"another process has been starting or stopping the server of {self.data_dir}"
                    f" for {GATE_S:.0f} s; end it, or use another data directory"
                )
            yield
        finally:
            gate.close()

    def _join_or_spawn(self, *, alone: bool) -> None:
        if self._lives():
            self._join()
            if self._wanted_port in (0, self.port):
                if alone:
                    with self._client() as client:
                        client.config_set("appendfsync", self.appendfsync)
                return
            if not alone:
                raise InvalidInput(
                    f"port={self._wanted_port}: the server of {self.data_dir} is in use on port"
                    f" {self.port}; leave the port out to join it"
                )
            self._end()
        self._spawn_on(self._wanted_port)

    def _lives(self) -> bool:
        lock = FileLock(self.data_dir / "server.lock")
        try:
            return not lock.own()
        finally:
            lock.close()

    def _join(self) -> None:
        """Take port and pid from the server that runs on this data directory."""
        self.port = self._recorded_port()
        if not (until(self._answers, START_S) and until(self._loaded, LOAD_S)):
            raise NoServer(
                f"a server runs on {self.data_dir} (see server.pid there) but does not answer on"
                f" port {self.port}; end that process and start again"
            )

    def _recorded_port(self) -> int:
        try:
            return int(json.loads((self.data_dir / "server.json").read_text())["port"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NoServer(
                f"a server runs on {self.data_dir} (see server.pid there) but server.json does not"
                f" give its port ({error}); end that process and start again"
            ) from None

    # -- one process

    def _spawn_on(self, port: int) -> None:
        for _ in range(PORT_TRIES - 1):
            try:
                return self._spawn(port or free_port())
            except PortTaken:
                if port:
                    raise
        return self._spawn(port or free_port())

    def _spawn(self, port: int) -> None:
        """Start the process and wait until it answers.

        The port is recorded before the process exists, so that a crash in between leaves no server
        with an unknown port.
        """
        self.port = port
        binary = self._binary or locate()
        refuse_taken(port)
        (self.data_dir / "server.json").write_text(json.dumps({"port": port}))
        lock = FileLock(self.data_dir / "server.lock")
        try:
            lock.own()
            with held_back():
                self._process = process = self._popen(binary, inherit=lock.fd)
        finally:
            lock.close()
        try:
            self._wait_ready(process)
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        """End a process that has just been started here, if one was."""
        process, self._pid, self._process = self._process, None, None
        if process is not None:
            process.kill()
            process.wait()

    def _popen(self, binary: ServerBinary, *, inherit: int) -> subprocess.Popen[bytes]:
        """The process in its own session: Ctrl-C reaches only its owner, which stops it."""
        with (self.data_dir / "server.log").open("wb") as log:
            return subprocess.Popen(
                [str(binary.path), *self._options()],
                cwd=self.data_dir,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(inherit,),
                start_new_session=True,
            )

    def _options(self) -> list[str]:
        options = {
            "bind": HOST,
            "port": str(self.port),
            "dir": str(self.data_dir),
            "appendonly": "yes",
            "appendfsync": self.appendfsync,
            "save": "",
            "daemonize": "no",
            "pidfile": str(self.data_dir / "server.pid"),
            # A title would overwrite its command line, which names the folder, and environment.
            "set-proc-title": "no",
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        def ended() -> bool:
            return process.poll() is not None

        ready = until(lambda: ended() or self._answers(), START_S) and until(
            lambda: ended() or self._loaded(), LOAD_S
        )
        if ready and not ended() and self._pid == process.pid:
            return
        if "in use" in self._log_tail():
            raise PortTaken(self.port)
        why = f"exited with {process.poll()}" if ended() else "does not answer"
        raise NoServer(
            f"the server on port {self.port} {why}; the end of {self.data_dir / 'server.log'}:\n"
            f"{self._log_tail()}"
        )

    def _answers(self) -> bool:
        """Whether the server of this data directory, and no other, answers; stores its pid."""
        with self._client() as client:
            try:
                if client.config_get("dir")["dir"] != str(self.data_dir):
                    return False
                self._pid = int(client.info("server")["process_id"])
            except redis.RedisError:  # not up yet; the caller has the deadline
                return False
        return True

    def _loaded(self) -> bool:
        with self._client() as client:
            try:
                return bool(client.ping())
            except redis.RedisError:  # still loading; the caller has the deadline
                return False

    def _client(self) -> redis.Redis:
        return redis.Redis(
            HOST,
            self.port,
            decode_responses=True,
            socket_timeout=1,
            socket_connect_timeout=1,
            retry=Retry(NoBackoff(), 0),
        )

    def _end(self) -> None:
        """Stop the process in three ways, gentlest first, and clear its records."""
        for way in (self._shut_down, self._terminate, self.kill):
            if not self._lives():
                break
            way()
        if self._process is not None:
            self._process.wait()
        self._pid = self._process = None
        for name in ("server.pid", "server.json"):
            (self.data_dir / name).unlink(missing_ok=True)

    def _shut_down(self) -> None:
        with self._client() as client:
            try:
                client.shutdown()
            except redis.RedisError:  # refused or unreachable; the next way needs no answer
                return
        until(lambda: not self._lives(), STOP_S)

    def _terminate(self) -> None:
        self._signal(signal.SIGTERM)
        until(lambda: not self._lives(), STOP_S)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.kill(self.pid, number)

    def _disown(self) -> None:
        """Leave the process to others.  A Popen without a return code would warn when dropped."""
        if self._process is not None:
            self._process.returncode = 0
        self._process = None

    def _log_tail(self) -> str:
        lines = (self.data_dir / "server.log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-LOG_LINES:])


_IN_USE: WeakSet[EmbeddedServer] = WeakSet()


def _forget_after_fork() -> None:
    """A forked child is no user: its copy of the lock would keep the server alive."""
    for server in list(_IN_USE):
        if server._users is not None:
            server._users.close()
        server._users = None
        server._disown()
    _IN_USE.clear()


os.register_at_fork(after_in_child=_forget_after_fork)
