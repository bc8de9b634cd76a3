"""Does the embedded server start, share, take over and stop as it promises?"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import redis

from multiagents.core.exceptions import InvalidInput, NoServer
from multiagents.devserver.server import EmbeddedServer, PortTaken, ServerBinary
from tests.support.processes import ROOT, script, wait_for


def client_of(server: EmbeddedServer) -> redis.Redis:
    return redis.Redis.from_url(server.url, decode_responses=True)


def put(server: EmbeddedServer, key: str, value: str) -> None:
    with client_of(server) as client:
        client.set(key, value)


def got(server: EmbeddedServer, key: str) -> str | None:
    with client_of(server) as client:
        return client.get(key)


def runs(pid: int) -> bool:
    """Whether the process runs; a zombie has ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


OWNER = """
import sys
from pathlib import Path
from multiagents.devserver.server import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1])).start()
print(server.pid, server.port, flush=True)
line = sys.stdin.readline().strip()
if line == "raise":
    raise RuntimeError("the owner breaks")
"""


@contextmanager
def owner(data_dir: Path) -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """Run another process that owns a server; yields it with the server's pid and port.

    A line of input ends it: ``raise`` by an exception, any other normally.
    """
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        pid, port = map(int, process.stdout.readline().split())
        yield process, pid, port


def end(process: subprocess.Popen[str], line: str) -> str:
    """Let the owner end and return what it wrote on stderr."""
    return process.communicate(f"{line}\n", timeout=20)[1]


class TestOneOwner:
    def test_it_answers_on_loopback_alone_with_an_append_only_file(self, tmp_path: Path) -> None:
        """The server listens on 127.0.0.1 alone and persists each write."""
        with EmbeddedServer(tmp_path / "a dir with spaces") as server, client_of(server) as client:
            listening = {
                connection.laddr.ip
                for connection in psutil.Process(server.pid).net_connections("tcp")
                if connection.status == psutil.CONN_LISTEN
            }
            config = client.config_get("append*", "save")
        assert listening == {"127.0.0.1"}
        assert server.url == f"redis://127.0.0.1:{server.port}/0"
        assert (config["appendonly"], config["appendfsync"], config["save"]) == (
            "yes",
            "everysec",
            "",
        )

    def test_it_stops_with_its_block_and_keeps_the_data(self, tmp_path: Path) -> None:
        """The block's end removes process and records; the next start has the data."""
        with EmbeddedServer(tmp_path, appendfsync="always") as server:
            put(server, "stock", "7")
            pid = server.pid
        assert not runs(pid)
        assert not (tmp_path / "server.pid").exists()
        assert not (tmp_path / "server.json").exists()
        with EmbeddedServer(tmp_path) as server:
            assert got(server, "stock") == "7"

    def test_it_stops_when_its_block_raises(self, tmp_path: Path) -> None:
        """An exception in the block leaves no process behind."""
        pids = []

        def break_in_the_block() -> None:
            with EmbeddedServer(tmp_path) as server:
                pids.append(server.pid)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            break_in_the_block()
        assert not runs(pids[0])

    def test_start_and_stop_may_be_called_twice(self, tmp_path: Path) -> None:
        """A second call of either changes nothing."""
        server = EmbeddedServer(tmp_path).start()
        pid = server.pid
        assert server.start().pid == pid
        server.stop()
        server.stop()
        with pytest.raises(NoServer, match="not started"):
            _ = server.pid

    @pytest.mark.parametrize("line", ["end", "raise"])
    def test_it_stops_with_its_process(self, tmp_path: Path, line: str) -> None:
        """Without stop() the server ends with Python, also after an exception."""
        with owner(tmp_path) as (process, pid, _):
            errors = end(process, line)
        assert ("the owner breaks" in errors) == (line == "raise")
        assert not runs(pid)

    def test_a_stopped_server_is_killed_in_the_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A server that ignores SHUTDOWN and SIGTERM (here under SIGSTOP) is killed."""
        monkeypatch.setattr("multiagents.devserver.server.STOP_S", 0.2)
        with EmbeddedServer(tmp_path) as server:
            pid = server.pid
            os.kill(pid, signal.SIGSTOP)
        assert not runs(pid)

    def test_it_survives_kill_and_restart_on_port_and_data(self, tmp_path: Path) -> None:
        """After SIGKILL, restart() gives a new process with the same port and data."""
        with EmbeddedServer(tmp_path, appendfsync="always") as server:
            put(server, "stock", "7")
            before = server.pid, server.port
            server.kill()
            with pytest.raises(redis.ConnectionError):
                got(server, "stock")
            server.restart()
            assert server.port == before[1]
            assert server.pid != before[0]
            assert got(server, "stock") == "7"
            server.restart()
            assert got(server, "stock") == "7"


class TestWhatGoesWrong:
    def test_the_servers_own_words_are_in_the_error(self, tmp_path: Path) -> None:
        """The error names port and log file, and quotes the end of the log."""
        ill = script(tmp_path, "ill", "echo no room on this disk; exit 1")
        server = EmbeddedServer(tmp_path / "data", binary=ServerBinary("test", ill, (9, 0, 0)))
        with pytest.raises(NoServer, match=r"port \d+ exited with 1") as caught:
            server.start()
        assert "server.log" in str(caught.value)
        assert str(caught.value).endswith("no room on this disk")

    def test_a_taken_port_is_one_line_and_leaves_nothing(self, tmp_path: Path) -> None:
        """The failed start leaves neither a log nor a folder behind."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            for folder in (tmp_path / "new", tmp_path):
                with pytest.raises(PortTaken) as caught:
                    EmbeddedServer(folder, port).start()
                assert str(caught.value) == (
                    f"port {port} is taken; choose another, or 0 for a free one"
                )
        assert not (tmp_path / "new").exists()
        with EmbeddedServer(tmp_path) as server:
            assert got(server, "stock") is None

    def test_ctrl_c_while_it_starts_leaves_no_process(self, tmp_path: Path) -> None:
        """An interrupted start ends the process."""
        mute = script(tmp_path, "mute", f"echo $$ > {tmp_path}/pid; exec sleep 60")
        server = EmbeddedServer(tmp_path / "data", binary=ServerBinary("test", mute, (9, 0, 0)))

        def interrupt() -> None:
            wait_for((tmp_path / "pid").exists, what="the process")
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            server.start()
        thread.join()
        assert not runs(int((tmp_path / "pid").read_text()))

    def test_a_server_that_never_answers_is_ended(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After the deadline the process ends, and the error says so."""
        monkeypatch.setattr("multiagents.devserver.server.START_S", 0.2)
        mute = script(tmp_path, "mute", f"echo $$ > {tmp_path}/pid; echo hm; exec sleep 60")
        server = EmbeddedServer(tmp_path / "data", binary=ServerBinary("test", mute, (9, 0, 0)))
        with pytest.raises(NoServer, match="does not answer") as caught:
            server.start()
        assert str(caught.value).endswith("hm")
        assert not runs(int((tmp_path / "pid").read_text()))

    def test_a_bad_appendfsync_is_refused(self, tmp_path: Path) -> None:
        """The setting takes only the server's three words."""
        with pytest.raises(InvalidInput, match="expected one of"):
            EmbeddedServer(tmp_path, appendfsync="sometimes")

    def test_records_of_a_dead_server_are_cleaned_up(self, tmp_path: Path) -> None:
        """A pidfile left by a crash may name an unrelated process; it is not used."""
        (tmp_path / "server.pid").write_text(str(os.getpid()))
        (tmp_path / "server.json").write_text('{"port": 1}')
        with EmbeddedServer(tmp_path) as server:
            assert server.pid != os.getpid()
            assert (tmp_path / "server.pid").read_text().strip() == str(server.pid)


class TestSeveralOwners:
    def test_the_last_to_leave_stops_it(self, tmp_path: Path) -> None:
        """A second owner joins the same process, which runs until both have left."""
        first, second = EmbeddedServer(tmp_path).start(), EmbeddedServer(tmp_path).start()
        pid = first.pid
        assert (second.pid, second.port) == (pid, first.port)
        first.stop()
        assert runs(pid)
        put(second, "stock", "7")
        second.stop()
        assert not runs(pid)

    def test_who_joins_and_leaves_does_not_stop_it(self, tmp_path: Path) -> None:
        """The first owner's server survives a second process that joins and leaves."""
        with EmbeddedServer(tmp_path) as server:
            with owner(tmp_path) as (process, pid, port):
                assert (pid, port) == (server.pid, server.port)
                end(process, "end")
            assert runs(server.pid)
            put(server, "stock", "7")

    def test_joining_on_another_port_is_refused(self, tmp_path: Path) -> None:
        """A running server keeps its port, and the error names it."""
        with (
            EmbeddedServer(tmp_path) as server,
            pytest.raises(InvalidInput, match=f"in use on port {server.port}"),
        ):
            EmbeddedServer(tmp_path, 1).start()

    def test_a_left_over_server_is_taken_over(self, tmp_path: Path) -> None:
        """After its owner's SIGKILL, the next start takes over the server with its data, and ends
        it.
        """
        with owner(tmp_path) as (process, pid, port):
            process.kill()
            process.wait()
        assert runs(pid)
        with EmbeddedServer(tmp_path, appendfsync="always") as server:
            assert (server.pid, server.port) == (pid, port)
            with client_of(server) as client:
                assert client.config_get("appendfsync") == {"appendfsync": "always"}
        wait_for(lambda: not runs(pid), what="the left-over server ends")

    def test_a_left_over_server_makes_way_for_a_wanted_port(
        self, tmp_path: Path, port: int
    ) -> None:
        """An unused server stops, and a new one serves its data on the wanted port."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            wanted = free.getsockname()[1]
        with owner(tmp_path) as (process, pid, _):
            process.kill()
            process.wait()
        with EmbeddedServer(tmp_path, wanted) as server:
            assert server.port == wanted
            assert server.pid != pid
        assert not runs(pid)

    def test_a_forked_child_is_no_user(self, tmp_path: Path) -> None:
        """A child forked in the block neither stops the server nor keeps it running."""
        server = EmbeddedServer(tmp_path).start()
        pid = server.pid
        fork = multiprocessing.get_context("fork")
        release = fork.Event()
        children = [fork.Process(target=server.stop), fork.Process(target=release.wait)]
        for child in children:
            child.start()
        children[0].join(10)
        assert runs(pid)
        server.stop()
        assert not runs(pid)
        release.set()
        children[1].join(10)
        assert [child.exitcode for child in children] == [0, 0]


def test_git_leaves_the_data_alone_unless_the_folder_was_there(tmp_path: Path) -> None:
    """The server adds no ignore file to a folder that existed before."""
    own = tmp_path / "own"
    own.mkdir()
    for folder, hidden in ((tmp_path / "new" / "data", True), (own, False)):
        with EmbeddedServer(folder):
            assert (folder / ".gitignore").exists() is hidden
    assert (tmp_path / "new" / "data" / ".gitignore").read_text() == "*\n"


def test_the_sessions_server_is_empty_for_each_test(redis_url: str, port: int) -> None:
    """The fixtures hand out one running server, flushed."""
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
    assert redis_url == f"redis://127.0.0.1:{port}/0"
