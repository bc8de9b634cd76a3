"""How does an error look in a shell?

One line with the problem, its subject and the remedy, and an exit code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from multiagents.cli.invocation import called
from multiagents.core.exceptions import InvalidWorkflow, MultiAgentsError, NotAllowed
from multiagents.core.interrupts import INTERRUPTED as INTERRUPTED
from multiagents.core.settings import REDIS_URL, get_settings

OK, SAGA_FAILED, WRONG_USE = 0, 1, 2
"""Exit codes.  INTERRUPTED is another one."""
TYPED = {each: f"dead-letters {each}" for each in ("skip", "resolve")}
"""How an action is typed, where that differs from its name."""


class CommandError(MultiAgentsError):
    """A command cannot be done; the message is for the user."""


class UnreachableError(CommandError):
    """No server answers at the URL of the settings."""

    def __init__(self, url: str, reason: str, named_by: str = REDIS_URL) -> None:
        self.reason = reason
        fix = f"set {named_by} to a running one, or start one with `multiagents dev`"
        if named_by != REDIS_URL:
            fix = f"start it, or correct {named_by}"
        super().__init__(f"cannot reach the server at {masked(url)} ({reason}); {fix}")


def explained(error: BaseException) -> str:
    """Any error on one line, with the remedy if one is known."""
    if isinstance(error, NotAllowed):
        return _with_typed_commands(one_line(error), error.allowed)
    if isinstance(error, MultiAgentsError):
        return one_line(error)
    ours = _of_the_server(error)
    if ours is not None:
        return one_line(ours)
    return f"{one_line(error)}; run it again with --debug for the traceback"


def with_mistakes(text: str, error: BaseException | None) -> str:
    """The text of an error, with each of several mistakes in a definition on a line of its own."""
    while error is not None:
        if isinstance(error, InvalidWorkflow) and len(error.errors) > 1:
            head = text.partition(" mistakes:")[0]
            lines = [" ".join(each.split()) for each in error.errors]
            return "\n  - ".join([f"{head} mistakes:", *lines])
        error = error.__cause__
    return text


def _with_typed_commands(text: str, allowed: Sequence[str]) -> str:
    """A refusal whose list of allowed actions shows each as it is typed."""
    ending = ", ".join(allowed)
    typed = ", ".join(TYPED.get(each, each) for each in allowed)
    return text.removesuffix(ending) + typed if text.endswith(ending) else text


def _of_the_server(error: BaseException) -> CommandError | None:
    from multiagents.storage.client import UNREACHABLE, NothingDone, StoreError
    from multiagents.storage.routing import ServerAway

    settings = called().settings or get_settings()
    first, *others = settings.servers
    if isinstance(error, ServerAway):
        return CommandError(f"{error}; start it, or see `multiagents doctor`")
    if isinstance(error, NothingDone):
        return CommandError(f"{error}; nothing was stored: see `multiagents doctor`")
    if isinstance(error, UNREACHABLE):
        return UnreachableError(first, type(error).__name__, settings.home.named_by)
    if isinstance(error, StoreError):
        which = "a server of the sagas" if others else f"the server at {masked(first)}"
        reason = masked(" ".join(str(error).split()))
        return CommandError(f"{which} refused: {reason}; see `multiagents doctor`")
    return None


def one_line(error: BaseException) -> str:
    """The message of an error on one line, with its type where the message alone is not enough."""
    text = " ".join(str(error).split())
    if isinstance(error, CommandError):  # ours: masked where a URL is put in
        return text
    if isinstance(error, MultiAgentsError) and text:
        return masked(text)
    name = type(error).__name__
    return masked(f"{name}: {text}" if text else name)


def masked(text: str) -> str:
    """The text with passwords in URLs replaced by ``***``.

    Everything up to the last ``@`` of a URL is hidden, because an unencoded ``@`` or ``/`` in a
    password moves where the host seems to begin; so is ``?password=``, the Sentinels' one too.
    """
    text = re.sub(r"(?<=://)\S*@", "***@", text)
    return re.sub(r"(?i)([?&]\w*(?:password|username)=)[^&\s]*", r"\1***", text)
