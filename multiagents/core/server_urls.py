"""How is the URL of a server written for the libraries that connect to it?

redis-py, kombu and Celery differ in Sentinels, in unix sockets, in options after a ``?``, and in a
``rediss://`` URL without ``ssl_cert_reqs``: redis-py checks the server's certificate, kombu does
not, Celery refuses the URL.  Here the certificate is always checked, unless the URL excludes it.

`check` accepts only URLs that have a form for all three.  An option that works in one and crashes
another is refused when the settings are read, before a worker fails to start.  No message quotes a
URL, which may have a password.  No I/O here.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from multiagents.core import sentinel
from multiagents.core.exceptions import InvalidInput
from multiagents.core.sentinel import is_sentinel, parse

TLS = "rediss://"
SOCKETS = ("unix://", "redis+socket://", "socket://")
"""The schemes of redis-py and Celery for a unix socket."""
SCHEMES = ("redis://", TLS, *SOCKETS[:2], sentinel.SCHEME)
"""The valid schemes of a server's URL."""
EXPECTED = (
    "expected redis://HOST:PORT/NUMBER (or rediss://, unix://, sentinel://), with USER:PASSWORD@"
    " before the host if needed, and characters such as / @ : # , in them percent-encoded"
)
SOCKET_FORM = "unix:///PATH?db=NUMBER"
CHECKED = "ssl_cert_reqs"
"""Whether the server's certificate is checked."""
_HOW = ("required", "optional", "none")
TLS_OPTIONS = (CHECKED, "ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_NUMBER = ("db", "virtual_host")
"""The names of a socket's database number in redis-py and Celery."""
_INSTEAD = {
    "protocol": "leave it out: the connection finds the server's protocol",
    "db": "write the number after the host: redis://HOST:PORT/NUMBER",
    "virtual_host": "write the number after the host: redis://HOST:PORT/NUMBER",
    "username": "write USER:PASSWORD@ before the host",
    "password": "write USER:PASSWORD@ before the host",
}
_CELERYS = (
    "leave it out: the engine's own connections are set as it needs them, and those of Celery by"
    " broker_transport_options and redis_* in celeryconfig.py"
)


def check(url: str) -> None:
    """Raise InvalidInput with the mistake in a URL, and what to write instead."""
    if is_sentinel(url):
        parse(url)
        return
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InvalidInput(f"not the URL of a server; {EXPECTED}") from error
    if not url.startswith(SCHEMES) or parts.fragment or "@" in parts.path:
        raise InvalidInput(f"not the URL of a server; {EXPECTED}")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if is_socket(url):
        _check_socket(parts.hostname, parts.path, options)
    else:
        _check_number(parts.path.strip("/"))
        _check_options(options, known=TLS_OPTIONS if url.startswith(TLS) else ())


def _check_socket(host: str | None, path: str, options: dict[str, str]) -> None:
    if host or len(path) < 2:
        raise InvalidInput(f"a unix socket needs its absolute path; expected {SOCKET_FORM}")
    _check_options(options, known=_NUMBER)
    for value in options.values():
        _check_number(value)


def _check_number(text: str) -> None:
    if text and not text.isdigit():
        raise InvalidInput(f"the database part is not a number; {EXPECTED}")


def _check_options(options: dict[str, str], known: tuple[str, ...]) -> None:
    unknown = sorted(options.keys() - set(known))
    if unknown:
        name = unknown[0]
        instead = _INSTEAD.get(name, _CELERYS)
        if name.startswith("ssl_"):
            listed = ", ".join(TLS_OPTIONS)
            instead = f"for TLS use rediss://, which takes {listed}"
        raise InvalidInput(f"not all connections support the option {name!r}; {instead}")
    how = options.get(CHECKED)
    if how is not None and _spelled(how) not in _HOW:
        raise InvalidInput(f"{CHECKED} is not one of {', '.join(_HOW)}")


def is_socket(url: str) -> bool:
    """Whether a URL names a unix socket."""
    return url.startswith(SOCKETS)


def explicit(url: str) -> str:
    """A server's URL for redis-py, which states whether to check the certificate."""
    if is_socket(url):
        return _socket(url, "unix", "db")
    if not url.startswith(TLS):
        return url
    place, _, query = url.partition("?")
    options = [option for option in query.split("&") if option]
    said = [option for option in options if option.startswith(f"{CHECKED}=")]
    how = _spelled(said[-1].partition("=")[2]) if said else "required"
    others = [option for option in options if option not in said]
    return f"{place}?{'&'.join([*others, f'{CHECKED}={how}'])}"


def celery_url(url: str) -> str:
    """The URL for ``broker_url`` and ``result_backend``."""
    if is_socket(url):
        return _socket(url, "redis+socket", "virtual_host")
    return parse(url).celery_url if is_sentinel(url) else explicit(url)


def transport_options(url: str) -> dict[str, Any]:
    """The options that Celery needs beside that URL; empty without Sentinels."""
    return parse(url).transport_options if is_sentinel(url) else {}


def shown_url(url: str) -> str:
    """The URL without its user, password and options, but with the name of a primary.

    A character that should have been percent-encoded may hide the beginning of the host.  So this
    function leaves out every part that may belong to a password, if necessary the whole URL.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "***" if "@" in url else url
    place, _, query = rest.partition("?")
    if "@" in query:
        return f"{scheme}://***"
    pieces = re.split(rf";(?={sentinel.SCHEME})", place)
    shown = ";".join([pieces[0].rpartition("@")[2], *map(_without_login, pieces[1:])])
    name = re.search(r"(?:^|&)(master_name=[^&\s]*)", query)
    return f"{scheme}://{shown}?{name[1]}" if name and is_sentinel(url) else f"{scheme}://{shown}"


def _without_login(url: str) -> str:
    scheme, separator, place = url.partition("://")
    return f"{scheme}{separator}{place.rpartition('@')[2]}"


def _spelled(how: str) -> str:
    return how.removeprefix("CERT_").lower()  # as the ssl module has it


def _socket(url: str, scheme: str, number_is: str) -> str:
    """A socket's URL for another library; the first database needs no number."""
    parts = urlsplit(url)
    numbers = [value for name, value in parse_qsl(parts.query) if name in _NUMBER]
    number = int(numbers[-1]) if numbers else 0
    query = f"?{number_is}={number}" if number else ""
    return f"{scheme}://{parts.netloc}{quote(parts.path, safe='/%')}{query}"
