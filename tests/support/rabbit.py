"""How does a test get its own RabbitMQ?

`Rabbit` runs Debian's ``rabbitmq-server``, whose absence is a failure, never a skip. It shares
nothing with another node of this machine: folder, port, cookie and ``epmd`` are its own, all on
127.0.0.1, and it loads no plugin. Server and epmd are stopped by their pids.

It runs the script under /usr/lib, because the one on PATH becomes the user rabbitmq, which cannot
read the test's folder.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.support.processes import free_port, wait_for

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
BOOT_S = 60.0
"""The time until a node takes connections, on a loaded machine."""
STOP_S = 30.0
MISSING = (
    f"no RabbitMQ at {SERVER}: apt-get install --no-install-recommends rabbitmq-server, or leave"
    " its tests out (-m 'not rabbitmq', which is the default)"
)
CONFIG = """
listeners.tcp.local = 127.0.0.1:{port}
disk_free_limit.absolute = 10MB
log.file.level = warning
"""
ERLANG = "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none"
"""Its own ports on this host alone; schedulers that do not spin while they are idle."""


class Rabbit:
    """A node; leaving the block ends it."""

    def __init__(self, folder: Path) -> None:
        if not SERVER.exists():
            raise FileNotFoundError(MISSING)
        self.folder = folder
        self.port, epmd_port, dist_port = free_port(), free_port(), free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"
        (folder / "rabbitmq.conf").write_text(CONFIG.format(port=self.port))
        (folder / "plugins").write_text("[].\n")
        self._env: Mapping[str, str] = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),  # of the cookie
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"multiagents-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(dist_port),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ERLANG,
        }
        self._epmd: subprocess.Popen[bytes] | None = None
        self._node: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._epmd = self._run("epmd", "-address", "127.0.0.1")
            wait_for(lambda: _listens(int(self._env["ERL_EPMD_PORT"])), 10, "epmd")
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            epmd, self._epmd = self._epmd, None
            if epmd is not None:
                epmd.kill()
                epmd.wait(STOP_S)

    def start(self) -> None:
        """Start with the durable queues and persistent messages of the last run."""
        self._node = self._run(str(SERVER))
        wait_for(self._takes_connections, BOOT_S, f"RabbitMQ; its log:\n{self.log}")

    def stop(self) -> None:
        """Stop it, as an operator would."""
        node, self._node = self._node, None
        if node is None:
            return
        pid_file = self.folder / "pid"
        if pid_file.exists():
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
        try:
            node.wait(STOP_S)
        except subprocess.TimeoutExpired:
            pass
        finally:  # its script, and any remaining process
            _signal(-node.pid, signal.SIGKILL)
            node.wait(STOP_S)
            pid_file.unlink(missing_ok=True)

    def signal(self, number: signal.Signals) -> None:
        """Freeze it, or let it go on."""
        _signal(int((self.folder / "pid").read_text()), number)

    @property
    def log(self) -> str:
        """Its output so far."""
        return (self.folder / "out").read_text(errors="replace")[-3000:]

    def _run(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / "out").open("ab") as out:
            return subprocess.Popen(
                command,
                env=self._env,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _takes_connections(self) -> bool:
        if self._node is not None and self._node.poll() is not None:
            raise RuntimeError(f"RabbitMQ ended ({self._node.returncode}); its log:\n{self.log}")
        return (self.folder / "pid").exists() and _listens(self.port)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:  # it has ended
        return
