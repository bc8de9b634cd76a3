"""Which server does a URL of a Celery app's settings name, as a URL of the engine?

Celery has some facts beside the URL: the name and the login of a Sentinels' primary in the
transport options, certificates in ``broker_use_ssl``.  Options that concern only Celery's own
connections are left out.  An option that no URL of the engine can hold is refused by name.  No
message quotes a URL, which may hold a password.  No I/O here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from multiagents.core.exceptions import InvalidInput
from multiagents.core.sentinel import SCHEME as SENTINEL
from multiagents.core.sentinel import is_sentinel
from multiagents.core.server_urls import (
    CHECKED,
    SOCKETS,
    TLS,
    TLS_OPTIONS,
    celery_url,
    check,
    is_socket,
    transport_options,
)

_PLAIN = "redis://"
_SCHEMES = (_PLAIN, TLS, *SOCKETS, SENTINEL)
_MEANT = ("db", "virtual_host", "username", "password")
"""Options that identify the server; `check` gives their syntax."""
_LOGIN = {"username": "sentinel_username", "password": "sentinel_password"}
_TIMES = frozenset({"socket_timeout", "socket_connect_timeout", "socket_keepalive", "retry"})
"""Celery's settings for connections to Sentinels; the engine has its own."""


def is_redis(url: Any) -> bool:
    """Whether a setting's only or first URL names a Redis server."""
    listed = urls_of(url)
    return bool(listed) and listed[0].startswith(_SCHEMES)


def urls_of(setting: Any) -> list[str]:
    """The servers of a setting: a URL, several separated by ``;``, or a list; each once.

    The Sentinels of one primary count as one server.
    """
    given = [setting] if isinstance(setting, str) else [str(each) for each in setting or ()]
    parts = [part.strip() for each in given for part in each.split(";") if part.strip()]
    if parts and is_sentinel(parts[0]):
        return [";".join(part for part in parts if is_sentinel(part))]
    return list(dict.fromkeys(parts))


def engine_url(url: str, *, options: Any = None, tls: Any = None) -> str:
    """A Celery URL in the engine's form.

    ``options``: its transport options; ``tls``: ``broker_use_ssl`` or a like setting.  Raises
    InvalidInput for a server to which the engine cannot connect.
    """
    place, _, query = url.partition("?")
    asked = dict(parse_qsl(query, keep_blank_values=True))
    if is_sentinel(url):
        asked = {**_of_sentinels(dict(options or {}), tls), **asked}
    else:
        if tls and place.startswith(_PLAIN):
            place = TLS + place.removeprefix(_PLAIN)
        asked = {name: value for name, value in asked.items() if _says_which(name)}
        if not is_socket(url):
            asked = {**_certificates(tls), **asked}
    found = f"{place}?{urlencode(asked, safe='/')}" if asked else place
    if found.startswith(SOCKETS[2]):
        found = SOCKETS[1] + found.removeprefix(SOCKETS[2])
    check(found)
    return found


def is_same(one: str, other: str) -> bool:
    """Whether two URLs of the engine's name the same database of the same server."""
    return _parts(one) == _parts(other)


def _parts(url: str) -> tuple[str, frozenset[tuple[str, str]], str | None]:
    place, _, query = celery_url(url).partition("?")
    return place, frozenset(parse_qsl(query)), transport_options(url).get("master_name")


def _says_which(name: str) -> bool:
    return name in _MEANT or name.startswith("ssl_")


def _certificates(tls: Any) -> dict[str, str]:
    given = dict(tls) if isinstance(tls, Mapping) else {}
    unknown = sorted(given.keys() - set(TLS_OPTIONS))
    if unknown:
        listed = ", ".join(TLS_OPTIONS)
        raise InvalidInput(f"TLS setting {unknown[0]!r} does not work for sagas; known: {listed}")
    return {name: _spelled(value) for name, value in given.items() if value or name == CHECKED}


def _spelled(value: Any) -> str:
    """The value in a URL; redis-py checks no certificate if it is None."""
    return "none" if value is None else str(getattr(value, "name", value)).removeprefix("CERT_")


def _of_sentinels(options: dict[str, Any], tls: Any) -> dict[str, str]:
    login = dict(options.get("sentinel_kwargs") or {})
    unknown = sorted(login.keys() - _LOGIN.keys() - _TIMES)
    if tls or unknown:
        what = repr(unknown[0]) if unknown else "TLS"
        raise InvalidInput(f"sagas cannot be kept behind Sentinels with {what}")
    given = {_LOGIN[name]: login[name] for name in _LOGIN if login.get(name)}
    if options.get("master_name"):
        given["master_name"] = str(options["master_name"])
    return given
