"""Why does a server not answer?

The reason is in plain words.  It never quotes the client's error, which may have a URL with its
password.
"""

from __future__ import annotations

_SIGNS = (
    ("no master found", "its Sentinels do not answer, or know no primary of that name"),
    (
        "certificate verify failed",
        "its certificate is not trusted: name its authority's, ?ssl_ca_certs=FILE",
    ),
    ("invalid username", "it rejects the user or password"),
    ("authentication", "it rejects the user or password"),
    ("refused", "connection refused"),
    ("connect call failed", "connection refused"),
    ("timed out", "no answer in time"),
    ("timeout", "no answer in time"),
    ("name or service", "unknown host"),
    ("resolve", "unknown host"),
    ("nodename", "unknown host"),
    ("temporary failure in name", "unknown host"),
    ("network is unreachable", "network is unreachable"),
    ("no route to host", "no route to the host"),
    ("closed by server", "connection closed"),
    ("reset by peer", "connection closed"),
    ("max number of clients", "it has too many clients"),
)


def reason_of(error: BaseException) -> str:
    """The reason behind an error; its type if no reason is known."""
    text = str(error).lower()
    return next((reason for sign, reason in _SIGNS if sign in text), type(error).__name__)
