"""Which settings of a Celery app do not work with sagas?

`refuse` is for `attach`: settings that no worker and no client can repair.  `faults` gives the
others, for the log of a starting worker and for `doctor`.  Connects to nothing.

For Celery 5.7 and kombu 5.7.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from celery import Celery
from kombu.connection import Connection

from multiagents.core.exceptions import InvalidInput
from multiagents.core.names import COORDINATOR_QUEUE
from multiagents.core.server_urls import SOCKETS

BROKER = ("broker_url", "broker_read_url", "broker_write_url")
_SOCKET = SOCKETS[0]
_TCP = ("redis", "rediss")


@dataclass(frozen=True, slots=True)
class SettingFlaw:
    """A setting that does not work, and its fix."""

    setting: str
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.setting}: {self.message}; {self.fix}"


def refuse(app: Celery) -> None:
    """Raise InvalidInput for an app that cannot host sagas at all."""
    if int(app.conf.task_protocol) == 1:
        raise InvalidInput(
            f"app {app.main!r}: with task_protocol = 1 a message has no headers, which mark a plain"
            " task's message as a saga's; set task_protocol = 2, Celery's default, which workers of"
            " Celery 4.0 and newer read"
        )


def faults(app: Celery, queues: Iterable[str] = ()) -> Iterator[SettingFlaw]:
    """The settings of an app that do not work.  ``queues``: those of its own workers' steps."""
    yield from _broker_urls(app)
    yield from _result_url(app)
    yield from _missing_queues(app, queues)


def _broker_urls(app: Celery) -> Iterator[SettingFlaw]:
    for setting in BROKER:
        for url in _listed(app.conf.get(setting)):
            if url.startswith(_SOCKET):
                yield SettingFlaw(setting, f"Celery does not support {_SOCKET}", _socket_fix())
            elif names := _unknown_options(url):
                yield SettingFlaw(
                    setting,
                    f"kombu takes no option {', '.join(names)} in a URL, and no worker starts",
                    "leave it out, and set it in broker_transport_options if you need it",
                )


def _listed(urls: Any) -> list[str]:
    """One URL, several separated by ``;``, or a list."""
    if isinstance(urls, str):
        return urls.split(";")
    return [str(url) for url in urls or ()]


def _unknown_options(url: str) -> list[str]:
    place, _, query = url.partition("?")
    if place.partition("://")[0] not in _TCP:
        return []
    known = inspect.signature(Connection._init_params).parameters.keys()
    names = [name for name, _ in parse_qsl(query, keep_blank_values=True)]
    return [name for name in names if not name.startswith("ssl_") and name not in known]


def _result_url(app: Celery) -> Iterator[SettingFlaw]:
    if str(app.conf.result_backend or "").startswith(_SOCKET):
        yield SettingFlaw("result_backend", f"Celery does not support {_SOCKET}", _socket_fix())


def _socket_fix() -> str:
    return f"write {SOCKETS[1]}/PATH?virtual_host=NUMBER"


def _missing_queues(app: Celery, queues: Iterable[str]) -> Iterator[SettingFlaw]:
    if app.conf.task_create_missing_queues:
        return
    have = app.amqp.queues.keys()
    missing = sorted({COORDINATOR_QUEUE, *queues} - have)
    if missing:
        yield SettingFlaw(
            "task_queues",
            f"task_create_missing_queues is off, and {', '.join(missing)} is not there: steps for"
            " it cannot be sent, and no worker consumes it",
            f"add {', '.join(f'Queue({name!r})' for name in missing)}",
        )
