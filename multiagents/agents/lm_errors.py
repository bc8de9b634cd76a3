"""What does a language model's failure mean for the saga?

- Retry: rate limits (``retry_after`` is honoured), server errors, transport errors, timeouts, and
  an answer that does not fit the signature.  -> WorkerExecutionError
- Give up: keys, billing, configuration, a request that the provider refuses.
  -> NonRetryableError, clean if none of the user's code was entered before.
- No error of the model: control exceptions, which DSPy wraps.  -> themselves

Messages name the worker and the model and hold no secret.  DSPy's own errors are not chained,
because their text comes from the provider.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from multiagents.agents.lm import load_dspy, without_secrets
from multiagents.agents.tools import CONTROL, Carried
from multiagents.core.exceptions import NonRetryableError, WorkerExecutionError

MESSAGE_CHARS = 400
ANSWER_CHARS = 120
"""How many characters of an answer that does not fit the signature are shown."""


def translated(error: BaseException, *, worker: str, effects: bool) -> BaseException:
    """The error to raise in place of an error of a model call.

    An error that is not DSPy's is returned as it is.
    """
    control = _control(error)
    if control is not None:
        return control
    dspy = load_dspy()
    if isinstance(error, dspy.AdapterParseError):
        return WorkerExecutionError(f"worker {worker!r}: {_unfit(error)}")
    if not isinstance(error, dspy.LMError):
        return error
    message = f"worker {worker!r}: {_told(error)}"
    if _refused(dspy, error):
        return NonRetryableError(message, clean=not effects)
    return WorkerExecutionError(message, error.retry_after)


def _control(error: BaseException) -> BaseException | None:
    for link in _chain(error):
        if isinstance(link, Carried):
            return link.error
        if isinstance(link, CONTROL):
            return link
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, outermost first."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__


def _refused(dspy: Any, error: Any) -> bool:
    """Whether the provider would refuse the same request again."""
    if dspy.is_retryable_lm_error(error):
        return False
    # An error that DSPy cannot classify, such as a broken stream, may not come again.
    return not isinstance(error, dspy.LMUnexpectedError)


def _told(error: Any) -> str:
    """DSPy's message without its advice, which does not apply here."""
    what = without_secrets(error.message.split("\n\n")[0].strip())[:MESSAGE_CHARS]
    facts = [error.code, error.status, error.request_id and f"request {error.request_id}"]
    return f"{error.model} failed ({', '.join(str(fact) for fact in facts if fact)}): {what}"


def _unfit(error: Any) -> str:
    expected = ", ".join(error.signature.output_fields)
    found = ", ".join(error.parsed_result or ()) or "none"
    start = without_secrets(" ".join(str(error.lm_response).split()))[:ANSWER_CHARS]
    return (
        f"the model's answer does not fit the signature: expected the fields {expected} with"
        f" values of their types; fields found: {found}; the answer begins {start!r}"
    )
