"""Which Celery app does ``celery -A multiagents`` run?

One with sensible defaults and nothing of ours in it yet: `bootstrap` attaches the engine, as it
does for any other app.  A ``celeryconfig.py`` on the path overrides every setting here.
"""

from __future__ import annotations

from importlib.util import find_spec
from math import ceil
from typing import Any

import click
from celery import Celery, signals

from multiagents.core.names import QUEUE_IO
from multiagents.core.server_urls import celery_url, transport_options
from multiagents.core.settings import Settings

OWN_NAME = "multiagents"
"""The name of this package's apps; the settings of all others are left alone."""
MESSAGE = "%(message)s%(of_step)s"
"""For a log's format; `core.log_records` gives each record its ``of_step``."""


def make_app(settings: Settings) -> Celery:
    """A Celery app with this package's defaults; connects to nothing."""
    app = Celery(OWN_NAME, set_as_current=False)
    app.add_defaults(lambda: defaults(settings))
    if find_spec("celeryconfig") is not None:
        app.config_from_object("celeryconfig")
    return app


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
