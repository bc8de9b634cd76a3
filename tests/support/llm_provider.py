"""Which stub provider do the tests of LLM workers use?

Their modules load it as a pytest plugin.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from multiagents.core.settings import get_settings
from multiagents.testing.stub_lm import StubProvider


@pytest.fixture(scope="session")
def running_provider() -> Iterator[StubProvider]:
    """One server for the session."""
    with StubProvider() as provider:
        yield provider


@pytest.fixture
def provider(
    running_provider: StubProvider, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StubProvider]:
    """The server in its first state, and the environment that names it."""
    for name, value in running_provider.environment().items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    yield running_provider.reset()
    get_settings.cache_clear()
