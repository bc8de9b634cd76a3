"""Which fixtures does pytest get when multiagents is installed?

``saga_lab`` runs sagas in the test's process; ``saga_clock`` is its clock.  Override
``saga_celery_app`` to test an app of your own that `multiagents.attach` was called with.

The report of a test that fails tells what its sagas did.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from multiagents.core.clock import FakeClock
    from multiagents.testing.lab import SagaLab


ASYNCIO_NOTICE = 'The configuration option "asyncio_default_fixture_loop_scope" is unset'


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Keep pytest-asyncio quiet where a project leaves its mode as it is: our extra has brought it.

    It warns of a setting that concerns async fixtures, before it is known whether there are any.
    """
    is_here = config.pluginmanager.has_plugin("asyncio")
    if is_here and config.getini("asyncio_mode") == "strict":
        warnings.filterwarnings("ignore", message=ASYNCIO_NOTICE)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell in the report of a test that fails what the sagas of its ``saga_lab`` did."""
    report = yield
    lab = getattr(item, "funcargs", {}).get("saga_lab")
    if lab is not None and report.when == "call" and report.failed:
        from multiagents.testing.report import TITLE, told

        try:
            text = told(lab.runner)
        except Exception as error:  # noqa: BLE001 - the test's own failure is what is to be seen
            text = f"they cannot be told: {type(error).__name__}: {error}"
        if text:
            report.sections.append((TITLE, text))
    return report


@pytest.fixture
def saga_celery_app() -> Any:
    """The Celery app whose sagas are tested: the package's own."""
    from multiagents.hosting.runtime import app

    return app


@pytest.fixture
def saga_lab(saga_celery_app: Any) -> Iterator[SagaLab]:
    """Sagas run eagerly, without a server; see `multiagents.testing.lab.SagaLab`.

    ``saga_lab.start("order", {...})`` returns the saga's id once it has come to rest;
    ``start_saga.delay("order", {...}).get()`` works as well.
    """
    from multiagents.hosting.runtime import attach
    from multiagents.testing.lab import eager

    with eager(attach(saga_celery_app)) as lab:
        yield lab


@pytest.fixture
def saga_clock(saga_lab: SagaLab, saga_celery_app: Any) -> FakeClock:
    """The clock of ``saga_lab``; ``advance(seconds)`` moves it."""
    from multiagents.hosting.runtime import attach

    return attach(saga_celery_app).eager.clock
