"""What does the guide take for granted?

A running Redis that ``MULTIAGENTS_REDIS_URL`` names, so that `RedisEventBus()` needs no argument;
a folder of one's own; and, for language models, a provider that answers what a test scripts.
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
    # A stopping worker waits for kombu to ask its queues once more: for 0.05 s, not for 1 s.
    runtime_at(redis_url).app.conf.broker_transport_options = {"polling_interval": 0.05}
    yield
    get_settings.cache_clear()
