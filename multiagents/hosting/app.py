"""Which Celery app does ``celery -A multiagents`` run?

One with sensible defaults and nothing of ours in it yet: `hosting.runtime` attaches the engine,
as it does for any other app.  A ``celeryconfig.py`` on the path overrides every setting here.
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
"""By its name, as Celery has it in Django processes; of a class it would die."""
OWN_NAME = "multiagents"
"""The name of this package's apps; the settings of all others are left alone."""
WRONG_USE = 2
"""The exit code of a command that was used wrongly, here as in `multiagents`."""
MESSAGE = "%(message)s%(of_step)s"
"""For a log's format; `core.log_records` gives each record its ``of_step``."""


def make_app(settings: Settings) -> Celery:
    """A Celery app with this package's defaults; connects to nothing."""
    before = _state.default_app
    app = Celery(OWN_NAME, set_as_current=False, loader=LOADER)
    if _state.default_app is app:
        # Celery makes the first app of a Django process the default one: to it the shared tasks of
        # all threads belong.  A project's own app, which is made after this import, is to be that.
        _state.set_default_app(before)
    app.add_defaults(lambda: defaults(settings))
    if find_spec("celeryconfig") is not None:
        app.config_from_object("celeryconfig")
    return app


class OwnLoader(AppLoader):  # type: ignore[misc]  # celery has no types
    """Celery's, which says in one line what is wrong with a module that it cannot import."""

    def import_task_module(self, module: str) -> Any:
        """Import a module of the settings.  Raises InvalidInput naming what is wrong with it."""
        named = module in get_settings().import_names
        with errors_in_one_line():
            user_modules.load((module,), of=user_modules.IMPORTS if named else "the app's imports")
        return super().import_task_module(module)


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Under the command `celery`, end it with exit code 2 at what the user has to mend.

    Celery would print a traceback of its own frames.  Elsewhere the error is raised on.
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
    """Make it the default app of a process that ``celery -A multiagents`` runs.

    Other apps are that by being made; this one is made by an import, perhaps in a program that has
    an app of its own.  Flower looks into the default app's results, whichever app it is given.
    """
    context = click.get_current_context(silent=True)
    named: Any = context.obj.app if context and hasattr(context.obj, "app") else None
    if named is not None and named is sender and named.main == OWN_NAME:
        named.set_current()
        named.set_default()


def defaults(settings: Settings) -> dict[str, object]:
    """Celery's settings as this package wants them; each line can be overridden."""
    url, options = celery_url(settings.redis_url), transport_options(settings.redis_url)
    return {
        "broker_url": url,
        "result_backend": url,
        "broker_transport_options": options,
        "result_backend_transport_options": dict(options),
        "result_expires": max(1, ceil(settings.retention_s)),  # to Celery 0 is for ever
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
        # A worker waits for its server for as long as it takes.
        "broker_connection_max_retries": None,
        # Cancelling running tasks when a connection breaks would leave them REVOKED for good.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # A result that nobody can fetch for a moment must not fail the step that made it.
        "result_backend_always_retry": True,
        "result_backend_max_retries": 10,
    }
