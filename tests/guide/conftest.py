"""Which environment does the guide expect?

A running Redis at ``MULTIAGENTS_REDIS_URL``, so that `RedisEventBus()` needs no argument; an empty
folder; and a provider that gives scripted answers for language models.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from multiagents.core.settings import get_settings
from multiagents.hosting.runtime import runtime_at


@pytest.fixture(autouse=True)
def running_redis(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[None]:
    """The environment in which the guide's programs run."""
    monkeypatch.setenv("MULTIAGENTS_REDIS_URL", redis_url)
    monkeypatch.chdir(tmp_path)
    get_settings.cache_clear()
    # A stopping worker waits for kombu's next poll of its queues: 0.05 s instead of 1 s.
    runtime_at(redis_url).app.conf.broker_transport_options = {"polling_interval": 0.05}
    yield
    get_settings.cache_clear()
