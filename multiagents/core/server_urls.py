"""How is the URL of a server written for the libraries that connect to it?

redis-py, kombu and Celery each have their own idea of Sentinels, and of a ``rediss://`` URL without
``ssl_cert_reqs``: the first checks the server's certificate, the second does not, the third
refuses the URL.  Here it is always checked unless the URL says otherwise.  No I/O here.
"""

from __future__ import annotations

from typing import Any

from multiagents.core.sentinel import is_sentinel, parse

TLS = "rediss://"
_CHECKED = "ssl_cert_reqs="


def explicit(url: str) -> str:
    """A URL that says whether the certificate is checked, in words that all three understand."""
    if not url.startswith(TLS):
        return url
    place, _, query = url.partition("?")
    options = [option for option in query.split("&") if option]
    said = [option for option in options if option.startswith(_CHECKED)] or [f"{_CHECKED}required"]
    how = said[-1].removeprefix(_CHECKED).removeprefix("CERT_").lower()  # as the ssl module has it
    others = [option for option in options if not option.startswith(_CHECKED)]
    return f"{place}?{'&'.join([*others, f'{_CHECKED}{how}'])}"


def celery_url(url: str) -> str:
    """The URL as ``broker_url`` and ``result_backend`` want it."""
    return parse(url).celery_url if is_sentinel(url) else explicit(url)


def transport_options(url: str) -> dict[str, Any]:
    """What Celery wants beside that URL; nothing for a server's own."""
    return parse(url).transport_options if is_sentinel(url) else {}
