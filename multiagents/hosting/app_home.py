"""Where does a Celery app keep its sagas?

On the server that `attach(app, url=...)`, MULTIAGENTS_REDIS_URL or MULTIAGENTS_STATE_URLS names, in
this order.  Without them, on the app's own Redis: its broker, or else its result backend.  An app's
settings are often loaded after `attach`.  So they are read when the server is first needed, and the
answer holds from then on.  Connects to nothing.

For Celery 5.7.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import structlog
from celery import Celery

from multiagents.core.exceptions import InvalidInput
from multiagents.core.settings import REDIS_URL, Home, Settings, shown_url
from multiagents.hosting import attached
from multiagents.hosting.app import OWN_NAME
from multiagents.transport.app_urls import engine_url, is_redis, is_same, urls_of

HOW = (
    'attach(app, url="redis://HOST:PORT/NUMBER") names one, or'
    f" {REDIS_URL} in every process of the app, clients included"
)


log = structlog.get_logger(__name__)


class _Source(NamedTuple):
    setting: str
    url: Any
    options: Any
    tls: Any


def settings_for(app: Celery, settings: Settings, url: str | None, *, own: bool) -> Settings:
    """The settings for an app's sagas, with their server.

    ``own``: the app is the package's; its broker is the variable's server unless a
    ``celeryconfig.py`` names another.  Raises InvalidInput for a URL that does not work.
    """
    if url is not None:
        settings = settings.at(url, named_by="attach(app, url=...)")
    elif not settings.names_a_server:
        settings = settings.found_by(_Search(app, settings.redis_url if own else "").home)
    elif own and not settings.state_urls:
        settings = settings.found_by(_Variable(settings.home).home)
    if not own:
        attached.note(app, settings)
    return settings


class _Variable:
    """The server that a variable names for the package's own app; compared at first use."""

    def __init__(self, home: Home) -> None:
        self._named = home

    def home(self) -> Home:
        """The server of its sagas."""
        return self._home

    @cached_property
    def _home(self) -> Home:
        _warn_of_another(self._named.url)
        return self._named


class _Search:
    """Looks for an app's own Redis, once."""

    def __init__(self, app: Celery, default: str) -> None:
        self._app = app
        self._default = default

    def home(self) -> Home:
        """The app's Redis.  Raises InvalidInput if it has none, or none that can keep sagas."""
        return self._home

    @cached_property
    def _home(self) -> Home:
        for source in _sources(self._app):
            if is_redis(source.url):
                return self._at(source)
        if self._default:
            return Home(self._default, REDIS_URL)
        kinds = " and ".join(f"{each.setting} {_kind(each.url)}" for each in _sources(self._app))
        raise InvalidInput(f"app {self._app.main!r} has no Redis for its sagas ({kinds}): {HOW}")

    def _at(self, source: _Source) -> Home:
        name = f"{source.setting} of app {self._app.main!r}"
        first, *others = urls_of(source.url)
        try:
            url = engine_url(first, options=source.options, tls=source.tls)
        except InvalidInput as error:
            raise InvalidInput(f"{name}: {error}; {HOW}") from error
        if self._default and is_same(url, self._default):
            _warn_of_another(url)
            return Home(url, REDIS_URL)
        flaw = f"it is the first of {len(others) + 1} servers, and sagas do not move to another"
        return Home(url, name, flaw if others else "")


FACES = "use start_saga, sagas and orchestrator() of what attach(app) returns"
"""The fix in a program whose sagas belong to another app."""


def advice(app: Celery, settings: Settings) -> str:
    """The fix, as a clause, when no server answers the package's own app.

    Empty if no other app hosts the program's sagas, or may be meant to.
    """
    if app.main != OWN_NAME:
        return ""
    if attached.latest() is None:
        theirs = attached.forgotten()
        how = attached.how_to_attach(theirs) if theirs else ""
        return f"if app {theirs.main!r} is to host the sagas, {how}" if theirs else ""
    there = _elsewhere(settings.home.url)
    return f"the sagas {there}: {FACES}" if there else ""


def _warn_of_another(url: str) -> None:
    """Warn of a use of the package's own app in a program whose sagas are another app's."""
    if there := _elsewhere(url):
        log.warning(
            f"multiagents.start_saga, sagas and Orchestrator look for sagas at {shown_url(url)},"
            f" but those {there}",
            fix=FACES,
        )


def _elsewhere(url: str) -> str:
    """The owner and the server of the program's sagas; empty if they are at this URL."""
    latest = attached.latest()
    if latest is None:
        return ""
    try:
        theirs = latest.settings.home
    except InvalidInput:
        return ""  # it has none; its first use raises that
    if is_same(url, theirs.url):
        return ""
    return f"of app {latest.app.main!r} are at {shown_url(theirs.url)}"


def _sources(app: Celery) -> Iterator[_Source]:
    conf = app.conf
    setting = "broker_write_url" if conf.broker_write_url != conf.broker_url else "broker_url"
    options = conf.broker_transport_options
    yield _Source(setting, conf.broker_write_url, options, conf.broker_use_ssl)
    options, tls = conf.result_backend_transport_options, conf.redis_backend_use_ssl
    yield _Source("result_backend", conf.result_backend, options, tls)


def _kind(url: Any) -> str:
    """The kind of server that a setting names, without its address."""
    listed = urls_of(url)
    scheme, separator, _ = (listed or ["not set"])[0].partition("://")
    return f"{scheme}{separator}"
