"""A stub provider for every test of LLM workers; loaded as a pytest plugin by their modules."""

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
    """The server as new, and the environment that points to it."""
    for name, value in running_provider.environment().items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    yield running_provider.reset()
    get_settings.cache_clear()
