"""How does pytest-celery run without containers?

Its nodes ask little of a container; `LocalProcess` answers for a process of this machine, so that
``celery_setup`` and the rest of pytest-celery work unchanged.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_celery import CeleryTestBackend, CeleryTestBroker, CeleryTestSetup, CeleryTestWorker

from multiagents.devserver.server import EmbeddedServer
from tests.support.processes import Worker


class ServerProcess:
    """The embedded server where pytest-celery expects a broker's container."""

    def __init__(self, folder: Path) -> None:
        self._server = EmbeddedServer(folder).start()
        self.id = self.name = "server"
        self.celeryconfig = {"url": self._server.url, "host_url": self._server.url}

    @property
    def status(self) -> str:
        return "running"

    def logs(self) -> str:
        return ""

    def ready(self, *_: Any, **__: Any) -> bool:
        return True

    def reload(self) -> None:
        """Nothing is cached."""

    def restart(self, *_: Any, **__: Any) -> None:
        self._server.restart()

    def kill(self, *_: Any, **__: Any) -> None:
        self._server.kill()

    def teardown(self) -> None:
        self._server.stop()


class WorkerProcess:
    """A worker of this machine where pytest-celery expects a container."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._worker = self._new()
        self.celeryconfig: dict[str, Any] = {}

    def _new(self) -> Worker:
        worker = Worker(
            self._url,
            "-Q",
            "llm,io",
            "-c",
            "2",
            imports="tests.support.basic_workers",
            env={"MULTIAGENTS_LEASE_S": "2"},
        )
        return worker.start()

    @property
    def id(self) -> str:
        return self._worker.name

    @property
    def name(self) -> str:
        return self._worker.name

    @property
    def status(self) -> str:
        return "running" if self._worker.process.poll() is None else "exited"

    def logs(self) -> str:
        return self._worker.log

    def ready(self, *_: Any, **__: Any) -> bool:
        self._worker.wait_ready()
        return True

    def reload(self) -> None:
        """Nothing is cached."""

    def kill(self, *_: Any, **__: Any) -> None:
        self._worker.kill()

    def restart(self, *_: Any, **__: Any) -> None:
        self.teardown()
        self._worker = self._new()
        self.ready()

    def teardown(self) -> None:
        self._worker.terminate()
        self._worker.log_file.unlink(missing_ok=True)

    def version(self) -> str:
        import celery

        return str(celery.__version__)

    def log_level(self) -> str:
        return "INFO"

    def worker_name(self) -> str:
        return self._worker.name

    def worker_queue(self) -> str:
        return "io"

    def exec_run(self, command: str) -> tuple[int, bytes]:
        done = subprocess.run(command, shell=True, capture_output=True, check=False)
        return done.returncode, done.stdout


class LocalWorker(CeleryTestWorker):
    """A worker node whose name is known beforehand."""

    def hostname(self) -> str:
        return str(self.worker_name)


@pytest.fixture
def celery_broker(tmp_path: Path) -> Iterator[CeleryTestBroker]:
    """The broker: the embedded server."""
    node = CeleryTestBroker(ServerProcess(tmp_path))
    yield node
    node.teardown()


@pytest.fixture
def celery_backend(celery_broker: CeleryTestBroker) -> CeleryTestBackend:
    """The result backend: the same server."""
    return CeleryTestBackend(celery_broker.container)


@pytest.fixture
def celery_worker(
    celery_broker: CeleryTestBroker, celery_backend: CeleryTestBackend, celery_setup_app: Any
) -> Iterator[CeleryTestWorker]:
    """A worker of this package."""
    node = LocalWorker(WorkerProcess(celery_broker.config()["host_url"]), celery_setup_app)
    node.container.ready()
    yield node
    node.teardown()


@pytest.fixture
def sagas(celery_setup: CeleryTestSetup, celery_broker: CeleryTestBroker) -> Any:
    """The engine, attached to pytest-celery's own app as a client."""
    from multiagents.core.settings import Settings
    from multiagents.hosting.runtime import attach

    url = celery_broker.config()["host_url"]
    return attach(celery_setup.app, Settings(redis_url=url, lease_s=2))
