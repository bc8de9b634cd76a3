"""How does a program run real sagas on a machine without a server and a worker?

    with sandbox(imports=["shop.workers"]):
        result = multiagents.start_saga.delay("order", {"sku": "A1"})
        print(result.get(timeout=30))

The block has a server, a worker process and, if no language model is set, a stub of one.  All of
them end with the block, however it ends (except by SIGKILL).

The package's app reads its settings once, when it is first used.  So use
``multiagents.start_saga``, ``multiagents.sagas`` and ``multiagents.app`` only inside the block;
``from multiagents import worker, WorkflowBuilder`` may come before it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from multiagents.core.exceptions import MultiAgentsError, NotAllowed
from multiagents.core.names import DEFAULT_QUEUES
from multiagents.core.polling import until
from multiagents.core.server_urls import celery_url
from multiagents.core.settings import get_settings

URL = "MULTIAGENTS_REDIS_URL"
STATE_URLS = "MULTIAGENTS_STATE_URLS"
STUB_NOTE = (
    "No language model is set (MULTIAGENTS_LM): a stub on this machine makes up the answers."
)
CONCURRENCY = 2
READY_S = 60.0
"""A worker imports its modules and connects; a loaded machine takes its time."""
STOP_S = 10.0
"""The time for a warm shutdown, in which running steps end."""
POLL_S = 0.05
LOG_LINES = 20


class SandboxError(MultiAgentsError):
    """The sandbox's worker did not start; the message ends with the last lines of its log."""


@contextmanager
def sandbox(
    imports: Sequence[str] = (),
    *,
    app: str = "multiagents",
    queues: Sequence[str] | None = DEFAULT_QUEUES,
    concurrency: int = CONCURRENCY,
    worker: bool = True,
    stub: bool = True,
    state_servers: int = 0,
    answers: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Run a server and a worker during the block; gives the server's URL.

    The server is that of MULTIAGENTS_REDIS_URL if it is set, else an embedded one with its data in
    a temporary folder.  With ``state_servers``, it is always embedded, and the sagas are on that
    number of further embedded servers (MULTIAGENTS_STATE_URLS).

    The worker is ``celery -A APP worker -Q QUEUES`` (None: all queues that it knows) with the
    modules ``imports``.  ``worker=False`` starts none, for a program that runs its own:
    `RedisEventBus` and the objects with a bus find the server.  A stub of a language model gives
    ``answers`` (see `StubProvider.script`) and prints a note on stdout, unless MULTIAGENTS_LM is
    set or ``stub=False``.  ``env`` is set for this process and the worker during the block.

    Raises NotAllowed if this process already used its app with another server.  Raises NoServer if
    no server can be started, and SandboxError if the worker does not start.
    """
    with ExitStack() as stack:
        stack.enter_context(_unwound_by_signals())
        prefix = "multiagents-sandbox-"
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix)))
        given = "" if state_servers else os.environ.get(URL, "")
        url = given or _server(stack, folder / "server")
        state = [_server(stack, folder / f"state{number}") for number in range(state_servers)]
        spread = {} if given else {STATE_URLS: ",".join(state)}
        model = _model(stack, answers) if stub else {}
        stack.enter_context(_environment({**_addresses(url), **spread, **model, **(env or {})}))
        if worker:
            _check_app(url)
            command = _command(app, queues, concurrency)
            stack.enter_context(_worker(command, ",".join(imports), folder / "worker.log"))
        yield url


def _server(stack: ExitStack, folder: Path) -> str:
    from multiagents.devserver.server import EmbeddedServer

    return stack.enter_context(EmbeddedServer(folder)).url


def _model(stack: ExitStack, answers: Mapping[str, Any] | None) -> dict[str, str]:
    if os.environ.get("MULTIAGENTS_LM"):
        return {}
    from multiagents.testing.stub_lm import StubProvider

    print(STUB_NOTE, flush=True)
    provider = stack.enter_context(StubProvider())
    return provider.script(answers or {}).environment()


def _addresses(url: str) -> dict[str, str]:
    """One server for all; Celery's variables take precedence over any celeryconfig.py."""
    celery = celery_url(url)
    return {URL: url, "CELERY_BROKER_URL": celery, "CELERY_RESULT_BACKEND": celery}


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    get_settings.cache_clear()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        get_settings.cache_clear()


def _check_app(url: str) -> None:
    loaded = sys.modules.get("multiagents.hosting.runtime")
    if loaded is not None and loaded.runtime.settings.redis_url != url:
        raise NotAllowed(
            "this process has already used multiagents with another server: enter sandbox() first,"
            " and use multiagents.start_saga, multiagents.sagas and multiagents.app inside it; a"
            f" second sandbox in one process needs a permanent server ({URL})"
        )


# ---- the worker ----


def _command(app: str, queues: Sequence[str] | None, concurrency: int) -> list[str]:
    chosen = ["-Q", ",".join(queues)] if queues else []
    quiet = ["-l", "INFO", "--without-gossip", "--without-mingle"]
    return ["-A", app, "worker", *chosen, "-c", str(concurrency), *quiet]


@contextmanager
def _worker(command: Sequence[str], imports: str, log: Path) -> Iterator[None]:
    hostname = f"sandbox-{os.getpid()}@localhost"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", *command, "-n", hostname],
            env={**os.environ, "MULTIAGENTS_IMPORTS": imports},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C reaches only this process, which stops the worker
        )
    try:
        _wait_ready(process, hostname, log)
        yield
    finally:
        _stop(process)


def _wait_ready(process: subprocess.Popen[bytes], hostname: str, log: Path) -> None:
    """Return once the worker has published its functions."""
    from multiagents.hosting.runtime import runtime

    def is_ready() -> bool:
        if hostname in runtime.edge.run(runtime.catalog.fleet()):
            return True
        if process.poll() is not None:
            raise SandboxError(f"the worker ended ({process.returncode}); its log:\n{_tail(log)}")
        return False

    if not until(is_ready, READY_S, poll_s=POLL_S):
        raise SandboxError(f"the worker is not ready in {READY_S:g} s; its log:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the worker warmly, then by force; also end its remaining children."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    finally:
        with suppress(ProcessLookupError):  # usually there is none
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def _unwound_by_signals() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the block like an exception, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield  # in Python, only the main thread can set handlers
        return

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    chosen = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, leave) for number in chosen]
    try:
        yield
    finally:
        for number, handler in zip(chosen, before, strict=True):
            signal.signal(number, handler)
