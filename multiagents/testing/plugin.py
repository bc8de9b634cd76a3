"""Which fixtures does pytest get when multiagents is installed?

``saga_lab`` runs sagas in the test's process; ``saga_clock`` is its clock.  Override
``saga_celery_app`` to test your own app, to which `multiagents.attach` was applied.

The report of a failed test shows the history of its sagas.
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
    """Silence a warning of pytest-asyncio in projects that leave its mode unset.

    Our extra installs pytest-asyncio.  It warns about a setting for async fixtures, even in a
    project without any.
    """
    is_here = config.pluginmanager.has_plugin("asyncio")
    if is_here and config.getini("asyncio_mode") == "strict":
        warnings.filterwarnings("ignore", message=ASYNCIO_NOTICE)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the history of the sagas of ``saga_lab`` to the report of a failed test."""
    report = yield
    lab = getattr(item, "funcargs", {}).get("saga_lab")
    if lab is not None and report.when == "call" and report.failed:
        from multiagents.testing.report import TITLE, told

        try:
            text = told(lab.runner)
        except Exception as error:  # noqa: BLE001 - it must not hide the test's own failure
            text = f"they cannot be shown: {type(error).__name__}: {error}"
        if text:
            report.sections.append((TITLE, text))
    return report


@pytest.fixture
def saga_celery_app() -> Any:
    """The Celery app under test: by default the package's own."""
    from multiagents.hosting.runtime import app

    return app


@pytest.fixture
def saga_lab(saga_celery_app: Any) -> Iterator[SagaLab]:
    """Sagas run eagerly, without a server; see `multiagents.testing.lab.SagaLab`.

    ``saga_lab.start("order", {...})`` returns the saga's id once the saga has ended or waits for an
    operator; ``start_saga.delay("order", {...}).get()`` works as well.
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
