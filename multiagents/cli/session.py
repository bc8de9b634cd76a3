"""Which engine does a command use?

The engine of the present environment.  Each command makes a new one, so no command depends on an
earlier one in the same process.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from multiagents.cli.errors import CommandError, UnreachableError
from multiagents.cli.invocation import called
from multiagents.core.clock import Clock
from multiagents.core.exceptions import InvalidInput, MultiAgentsError, UnknownSaga
from multiagents.core.server_urls import check
from multiagents.core.settings import REDIS_URL, Settings, get_settings
from multiagents.core.texts import joined

if TYPE_CHECKING:
    from celery import Celery

    from multiagents.core.effects import Flow
    from multiagents.hosting.runtime import Runtime

T = TypeVar("T")

_opened: list[Runtime] = []
LEAST_OF_ID = 4
"""The shortest beginning of an id that is searched; a shorter one would fit many."""
SHOWN_IDS = 5
"""How many ids with the same beginning a message names."""
_WHOLE = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
PROBE_S = 3.0
"""How long a server may take to answer."""
_EXPECTED_APP = "expected a module that has one, or MODULE:NAME, as after `celery -A`"


@dataclass(frozen=True, slots=True)
class Session:
    """A server that answers, and its operations."""

    runtime: Runtime
    found: dict[str, str] = field(default_factory=dict)
    """The whole ids of the beginnings that were looked up so far."""

    def call(self, operation: str, *args: Any, **kwargs: Any) -> Any:
        """Run one of the operations on sagas; a unique beginning of an id is enough.

        Raises CommandError for a beginning that several ids have.
        """
        try:
            return self.runtime.host.call(operation, *args, **kwargs)
        except UnknownSaga:
            from multiagents.operations.operation import OPERATIONS

            is_first = OPERATIONS[operation].of_one_saga
            given = args[0] if is_first else kwargs.get("saga_id")
            meant = self._found(given) if isinstance(given, str) else given
            if meant == given:
                raise
        if is_first:
            return self.runtime.host.call(operation, meant, *args[1:], **kwargs)
        return self.runtime.host.call(operation, *args, **{**kwargs, "saga_id": meant})

    def _found(self, given: str) -> str:
        if given not in self.found:
            self.found[given] = self.whole_id(given)
        return self.found[given]

    def whole_id(self, text: str) -> str:
        """The id of the only saga whose id begins with the text; the text itself if there is none.

        Raises CommandError if there are several, or if the text is too short.
        """
        if is_whole(text):
            return text
        if len(text) < LEAST_OF_ID:
            least = f"the beginning of an id needs at least {LEAST_OF_ID} characters"
            raise CommandError(f"no saga {text!r}; {least}")
        found = self.run(self.runtime.host.service.beginning(text))
        if len(found) > 1:
            some = ", ".join(found[:SHOWN_IDS])
            more = " and others" if len(found) > SHOWN_IDS else ""
            raise CommandError(
                f"several ids begin with {text!r}: {some}{more}; give more characters"
            )
        return found[0] if found else text

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
    """The settings of the present environment.  Raises InvalidInput, which names the mistake."""
    get_settings.cache_clear()
    return get_settings()


def connect(settings: Settings | None = None) -> Session:
    """A session with the server of these settings (by default the environment's).

    Raises UnreachableError if no server answers, CommandError if it rejects the credentials.
    """
    runtime = make_runtime(settings or environment())
    probe(runtime)
    return Session(runtime)


def load_code(settings: Settings) -> None:
    """Import MULTIAGENTS_IMPORTS and read MULTIAGENTS_WORKFLOWS, so that they register.

    This is for the package's own app only: a team's app imports its own modules.  The modules'
    output goes to stderr.  Raises InvalidInput for a module or file that cannot be read.
    """
    from multiagents.workflows import user_code

    with redirect_stdout(sys.stderr):
        if called().app is None:
            user_code.load(settings)
        else:
            user_code.register_files(settings)


def close_sessions() -> None:
    """Close all engines that `make_runtime` has opened."""
    while _opened:
        runtime = _opened.pop()
        runtime.edge.close()


def make_runtime(settings: Settings) -> Runtime:
    """The engine for these settings, hosted by the app that the command line was called for, or by
    one of its own; connects to nothing.
    """
    from multiagents.hosting.app import make_app
    from multiagents.hosting.runtime import attach

    runtime = attach(called().app or make_app(settings), settings)
    called().settings = runtime.settings
    for url in runtime.settings.servers:
        check_url(url, runtime.settings.home.named_by)
    _opened.append(runtime)
    return runtime


def find_app(name: str) -> Celery:
    """The Celery app that ``celery -A NAME`` would find.  Raises CommandError if there is none."""
    from celery import Celery
    from celery.app import utils

    try:
        found = utils.find_app(name)
    except (ImportError, AttributeError) as error:
        raise CommandError(joined(f"no Celery app {name!r}: {error}", _EXPECTED_APP)) from error
    except ValueError as error:  # kombu's message for an error that a module raises
        if isinstance(error.__context__, MultiAgentsError):
            raise error.__context__ from error
        raise
    if not isinstance(found, Celery):
        raise CommandError(
            f"{name!r} is a {type(found).__name__}, not a Celery app; {_EXPECTED_APP}"
        )
    return found


def load_app(app: Celery, name: str = "") -> None:
    """Import the modules of a team's app: one may attach it, or register its workflows.

    Their output goes to stderr.  Raises CommandError if the app is not attached afterwards.
    """
    from multiagents.hosting.attached import how_to_attach, is_attached

    with redirect_stdout(sys.stderr):
        app.loader.import_default_modules()
    if not is_attached(app):
        raise CommandError(f"app {name or app.main!r} has no sagas: {how_to_attach(app)}")


def probe(runtime: Runtime) -> None:
    """Correct this clock by the first server that answers within `PROBE_S`.

    Raises CommandError about the first server if none answers.
    """
    errors: list[CommandError] = []
    for url in runtime.settings.servers:
        try:
            probe_server(url, runtime.clock, named_by=runtime.settings.home.named_by)
        except CommandError as error:
            errors.append(error)
        else:
            return
    raise errors[0]


def probe_server(url: str, clock: Clock, *, named_by: str = REDIS_URL) -> None:
    """Read one server's time once, and correct the clock by it.  Raises CommandError."""
    from multiagents.storage.client import UNREACHABLE, Edge
    from multiagents.storage.health import DENIED, REFUSED
    from multiagents.storage.outages import reason_of

    check_url(url, named_by)
    edge = Edge(url, timeout_s=PROBE_S, retries=0)
    try:
        edge.correct(clock)
    except DENIED as error:
        raise denied(url, named_by) from error
    except UNREACHABLE as error:
        raise UnreachableError(url, reason_of(error), named_by) from error
    except REFUSED as error:
        raise denied(url, named_by) from error
    finally:
        edge.close()


def denied(url: str, named_by: str) -> CommandError:
    """The error for a server that answers and refuses the connection."""
    from multiagents.cli.errors import masked

    return CommandError(
        f"the server at {masked(url)} rejects the user or password; set the right ones"
        f" in {named_by}: redis://USER:PASSWORD@HOST:PORT/0"
    )


def is_whole(text: str) -> bool:
    """Whether a text has the form of a generated id."""
    return re.fullmatch(_WHOLE, text) is not None


def check_url(url: str, named_by: str = REDIS_URL) -> None:
    """Raise CommandError for a malformed URL; parsers would quote its password in their errors."""
    try:
        check(url)
    except InvalidInput as error:
        raise CommandError(f"{named_by}: {error}") from error
