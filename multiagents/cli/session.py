"""Which engine does a command talk to?

The one that the environment describes now, made anew for each command, so that a command never
depends on what its process did before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from multiagents.cli.errors import CommandError, UnreachableError
from multiagents.core.settings import Settings, get_settings

if TYPE_CHECKING:
    from multiagents.bootstrap import Runtime
    from multiagents.storage.calls import Flow

T = TypeVar("T")

_opened: list[Runtime] = []
PROBE_S = 3.0
"""How long a server may take to say that it is there."""


@dataclass(frozen=True, slots=True)
class Session:
    """A server that answers, and the operations on it."""

    runtime: Runtime

    def call(self, operation: str, *args: Any, **kwargs: Any) -> Any:
        """Run one of the operations on sagas."""
        return self.runtime.host.call(operation, *args, **kwargs)

    def run(self, flow: Flow[T]) -> T:
        """Run a flow."""
        return self.runtime.edge.run(flow)

    def fleet(self) -> Mapping[str, dict[str, Any]]:
        """Running worker processes: hostname -> queues, workers (name -> queue), at_ms."""
        return self.run(self.runtime.catalog.fleet())

    @property
    def now_ms(self) -> int:
        """The time by the server's clock."""
        return self.runtime.clock.now_ms()


def environment() -> Settings:
    """The settings of the environment as it is now.  Raises InvalidInput naming what is wrong."""
    get_settings.cache_clear()
    return get_settings()


def connect(settings: Settings | None = None) -> Session:
    """A session with the server of these settings (by default the environment's).

    Raises UnreachableError where no server answers, CommandError where it does not let us in.
    """
    runtime = make_runtime(settings or environment())
    probe(runtime)
    return Session(runtime)


def close_sessions() -> None:
    """Close what `make_runtime` has opened so far; a program's end would do it less tidily."""
    while _opened:
        runtime = _opened.pop()
        runtime.edge.close()


def make_runtime(settings: Settings) -> Runtime:
    """The engine for these settings; connects to nothing."""
    check_url(settings.redis_url)
    from multiagents.bootstrap import attach
    from multiagents.celery_app import make_app

    runtime = attach(make_app(settings), settings)
    _opened.append(runtime)
    return runtime


def probe(runtime: Runtime) -> None:
    """Ask the server for its time, once and not patiently, and correct our clock by it."""
    from multiagents.storage.client import UNREACHABLE, Edge
    from multiagents.storage.health import DENIED, REFUSED

    url = runtime.settings.redis_url
    check_url(url)
    edge = Edge(url, timeout_s=PROBE_S, retries=0)
    try:
        edge.correct(runtime.clock)
    except DENIED as error:
        raise denied(url) from error
    except UNREACHABLE as error:
        raise UnreachableError(url, _reason(error)) from error
    except REFUSED as error:
        raise denied(url) from error
    finally:
        edge.close()


def denied(url: str) -> CommandError:
    """The server is there and does not let us in."""
    from multiagents.cli.errors import masked

    return CommandError(
        f"the server at {masked(url)} does not let us in; put the user and password that it expects"
        " into MULTIAGENTS_REDIS_URL: redis://USER:PASSWORD@HOST:PORT/0"
    )


def check_url(url: str) -> None:
    """Raise CommandError for what is no URL; parsers would quote its password in their errors."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("redis", "rediss", "unix") and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good:
        raise CommandError(
            "MULTIAGENTS_REDIS_URL is no URL of a server; expected"
            " redis://[USER:PASSWORD@]HOST:PORT/NUMBER (or rediss://, unix://), with signs such as"
            " / @ : # in the password percent-encoded"
        )


def _reason(error: BaseException) -> str:
    text = str(error).lower()
    for sign in ("refused", "timed out", "timeout"):
        if sign in text:
            return "connection refused" if sign == "refused" else "no answer in time"
    if "name or service" in text or "resolve" in text or "nodename" in text:
        return "unknown host"
    return type(error).__name__
