"""Which Celery app does ``celery -A multiagents`` run?

An app with sensible defaults.  `hosting.runtime` attaches the engine to it, as to any other app.
A ``celeryconfig.py`` on the path overrides every setting here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from math import ceil
from typing import Any

import click
from celery import Celery, _state, signals
from celery.loaders.app import AppLoader

from multiagents.core import user_modules
from multiagents.core.exceptions import InvalidInput
from multiagents.core.names import QUEUE_IO
from multiagents.core.server_urls import celery_url, transport_options
from multiagents.core.settings import Settings, get_settings
from multiagents.core.texts import shown
from multiagents.worker_sdk.validation import redact

LOADER = "multiagents.hosting.app:OwnLoader"
"""A name, because Celery fails on a class in Django processes."""
OWN_NAME = "multiagents"
"""The name of this package's apps; the settings of all others stay unchanged."""
WRONG_USE = 2
"""The exit code of a command that was used wrongly, here as in `multiagents`."""
MESSAGE = "%(message)s%(of_step)s"
"""For a log's format; `core.log_records` gives each record its ``of_step``."""


def make_app(settings: Settings) -> Celery:
    """A Celery app with this package's defaults; connects to nothing."""
    before = _state.default_app
    app = Celery(OWN_NAME, set_as_current=False, loader=LOADER)
    if _state.default_app is app:
        # Celery makes the first app of a Django process the default one, and all threads' shared
        # tasks belong to it.  That must be the project's own app, which is made after this import.
        _state.set_default_app(before)
    app.add_defaults(lambda: defaults(settings))
    if find_spec("celeryconfig") is not None:
        app.config_from_object("celeryconfig")
    return app


class OwnLoader(AppLoader):  # type: ignore[misc]  # celery has no types
    """Celery's loader, with a one-line error for a module that cannot be imported."""

    def import_task_module(self, module: str) -> Any:
        """Import a module of the settings.  Raises InvalidInput naming what is wrong with it."""
        named = module in get_settings().import_names
        with errors_in_one_line():
            user_modules.load((module,), of=user_modules.IMPORTS if named else "the app's imports")
        return super().import_task_module(module)


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Under the command `celery`, turn InvalidInput into one line and exit code 2.

    Celery would print a traceback of its own frames.  Elsewhere the error is raised.
    """
    try:
        yield
    except InvalidInput as error:
        context = click.get_current_context(silent=True)
        if context is None or context.find_root().command.name != "celery":
            raise
        print(f"error: {redact(shown(str(error)))}", file=sys.stderr)
        raise SystemExit(WRONG_USE) from None


@signals.import_modules.connect  # type: ignore[untyped-decorator]  # celery has no types
def _be_the_default(sender: Any = None, **_: Any) -> None:
    """Make the app the default one of a process that ``celery -A multiagents`` runs.

    Other apps become the default when they are made.  This one is made by an import, perhaps in a
    program with an app of its own.  Flower reads the default app's results, whatever app it gets.
    """
    context = click.get_current_context(silent=True)
    named: Any = context.obj.app if context and hasattr(context.obj, "app") else None
    if named is not None and named is sender and named.main == OWN_NAME:
        named.set_current()
        named.set_default()


def defaults(settings: Settings) -> dict[str, object]:
    """This package's defaults for Celery's settings; each line can be overridden."""
    url, options = celery_url(settings.redis_url), transport_options(settings.redis_url)
    return {
        "broker_url": url,
        "result_backend": url,
        "broker_transport_options": options,
        "result_backend_transport_options": dict(options),
        "result_expires": max(1, ceil(settings.retention_s)),  # 0 means no expiry to Celery
        "imports": settings.import_names,
        "task_default_queue": QUEUE_IO,
        # Celery's own, with the saga, workflow and step of the line at its end.
        "worker_log_format": f"[%(asctime)s: %(levelname)s/%(processName)s] {MESSAGE}",
        "worker_task_log_format": (
            f"[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: {MESSAGE}"
        ),
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_acks_late": False,
        "broker_connection_retry_on_startup": True,
        # A worker waits for its server without limit.
        "broker_connection_max_retries": None,
        # Tasks cancelled when a connection breaks would stay REVOKED.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # A short outage of the result backend must not fail the step that made the result.
        "result_backend_always_retry": True,
        "result_backend_max_retries": 10,
    }
