"""Which database, and which starters of workers, does a test with processes have?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from multiagents.devserver.server import EmbeddedServer
from tests.support.celery_rig import CeleryRig


@pytest.fixture
def rig(server: EmbeddedServer, tmp_path: Path) -> Iterator[CeleryRig]:
    """A database of the server (a file may have its own), emptied, and a folder of notes."""
    made = CeleryRig(server.url, 0, tmp_path)
    yield made
    made.close()
