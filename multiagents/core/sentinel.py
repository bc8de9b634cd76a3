"""Which servers does a ``sentinel://`` URL name?

    sentinel://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]...][/NUMBER]?master_name=NAME

The hosts are those of the Sentinels.  NAME is the primary that they watch; user, password and
NUMBER are the primary's.  ``sentinel_password=`` (and ``sentinel_username=``) is the Sentinels' own
password, if they have one.  Celery's list of hosts, ``sentinel://A/0;sentinel://B/0``, is valid,
too.  No I/O here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from multiagents.core.exceptions import InvalidInput

SCHEME = "sentinel://"
DEFAULT_PORT = 26379
ASK_S = 1.0
"""The timeout for an answer of one Sentinel."""
FORM = "sentinel://[USER:PASSWORD@]HOST:PORT[,HOST:PORT...]/NUMBER?master_name=NAME"
_OPTIONS = frozenset({"master_name", "sentinel_username", "sentinel_password"})


@dataclass(frozen=True, slots=True)
class SentinelAddress:
    """One primary, and the Sentinels that watch it."""

    hosts: tuple[tuple[str, int], ...]
    master: str
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)

    @property
    def credentials(self) -> dict[str, str]:
        """The user and password of the primary."""
        return _given(username=self.username, password=self.password)

    @property
    def sentinel_kwargs(self) -> dict[str, Any]:
        """redis-py's options for each Sentinel: one attempt, then it asks the next Sentinel."""
        times = {"socket_timeout": ASK_S, "socket_connect_timeout": ASK_S, "retry": None}
        return {**times, **_given(username=self.sentinel_username, password=self.sentinel_password)}

    @property
    def celery_url(self) -> str:
        """The URL for ``broker_url`` and ``result_backend``, without the primary's name."""
        user, password = quote(self.username or "", safe=""), quote(self.password or "", safe="")
        prefix = f"{user}:{password}@" if user or password else ""
        return ";".join(
            f"{SCHEME}{prefix}{_bracketed(host)}:{port}/{self.db}" for host, port in self.hosts
        )

    @property
    def transport_options(self) -> dict[str, Any]:
        """The options that Celery needs beside the URL."""
        return {"master_name": self.master, "sentinel_kwargs": self.sentinel_kwargs}


def is_sentinel(url: str) -> bool:
    """Whether a URL names Sentinels instead of a server."""
    return url.startswith(SCHEME)


def parse(url: str) -> SentinelAddress:
    """The address of a ``sentinel://`` URL.  Raises InvalidInput, which never quotes the URL."""
    text, _, query = url.partition("?")
    options = dict(parse_qsl(query))
    pieces = [piece.strip().removeprefix(SCHEME) for piece in text.split(";")]
    login, _, place = pieces[0].rpartition("@")
    user, _, password = login.partition(":")
    hosts, _, number = place.partition("/")
    others = [piece.rpartition("@")[2].partition("/")[0] for piece in pieces[1:]]
    master = options.get("master_name", "")
    _check(master, number, options)
    return SentinelAddress(
        hosts=tuple(_host(host) for host in (*hosts.split(","), *others)),
        master=master,
        db=int(number or 0),
        username=unquote(user) or None,
        password=unquote(password) or None,
        sentinel_username=options.get("sentinel_username"),
        sentinel_password=options.get("sentinel_password"),
    )


def _check(master: str, number: str, options: dict[str, str]) -> None:
    unknown = sorted(options.keys() - _OPTIONS)
    if unknown:
        known = ", ".join(sorted(_OPTIONS))
        raise InvalidInput(f"unknown option {', '.join(unknown)} in a Sentinel URL; known: {known}")
    if not master:
        raise InvalidInput(
            f"a Sentinel URL must name the primary that its Sentinels watch; expected {FORM}"
        )
    if number and not number.isdigit():
        raise InvalidInput(f"the part after / is not a database number; expected {FORM}")


def _host(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text.strip()}")
        found = parts.hostname, parts.port or DEFAULT_PORT
    except ValueError as error:
        raise InvalidInput(f"a Sentinel's port is not a number; expected {FORM}") from error
    if not found[0]:
        raise InvalidInput(f"a Sentinel's host is missing; expected {FORM}")
    return found[0], found[1]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _given(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}
