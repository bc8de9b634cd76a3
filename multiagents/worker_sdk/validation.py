"""Which results may be stored, and which texts may be shown?

The rules of `core.stored_json` for inputs hold for results too.  Texts that leave a worker are
stripped of secrets.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ValidationError

from multiagents.core.exceptions import InvalidResult
from multiagents.core.stored_json import as_json, check_input, compact, kind_of, to_json

__all__ = ["as_json", "check_input", "check_result", "compact", "explain", "redact", "to_json"]


def check_result(result: Any, worker: str, limit: int) -> tuple[dict[str, Any], str]:
    """A worker's result as a dict of JSON values, and as JSON; None is ``{}``, a model its fields.

    Raises InvalidResult.
    """
    if isinstance(result, BaseModel):
        result = result.model_dump(mode="json")
    if result is None:
        return {}, "{}"
    if not isinstance(result, dict):
        raise InvalidResult(
            f"worker {worker!r} returned {kind_of(result)}: return a dict, as in"
            f" {{'value': ...}}, or nothing"
        )
    found: tuple[dict[str, Any], str] = as_json(result, what=f"result of {worker!r}", limit=limit)
    return found


def explain(error: ValidationError) -> str:
    """The findings of a validation, without the values, which may be secrets."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(
        f"{'.'.join(map(str, item['loc']))}: {item['msg']}" if item["loc"] else item["msg"]
        for item in found
    )


_SECRETS: tuple[tuple[re.Pattern[str], str], ...] = (
    # scheme://user:password@host; greedy, because passwords hold "@" and "/"
    (re.compile(r"(://[^\s:/@]*:)\S+@"), r"\1***@"),
    (re.compile(r"(://)[^\s:/@]+@"), r"\1***@"),
    (re.compile(r"(?i)(authorization[\"']?\s*[:=]\s*[\"']?)(?:\w+\s+)?[^\s\"',;]+"), r"\1***"),
    (re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]{8,}"), r"\1***"),
    (
        re.compile(
            r"(?i)((?:api[_-]?key|access[_-]?key|(?:access|auth|refresh|id|api)[_-]?token|secret"
            r"|passw(?:or)?d|pwd)[\w-]*[\"']?\s*[=:]\s*)(?:\"[^\"]*\"|'[^']*'|[^\s\"',;&]+)"
        ),
        r"\1***",
    ),
    (re.compile(r"(?i)(\btoken=)[^\s\"',;&]+"), r"\1***"),
    # Keys known by their form: OpenAI and Anthropic, Google, GitHub, AWS, Slack.
    (
        re.compile(
            r"(?<![A-Za-z0-9])(?:sk-[\w-]{8,}|AIza[\w-]{20,}|gh[pousr]_\w{16,}|AKIA[0-9A-Z]{12,}"
            r"|xox[abeprs]-[\w-]{8,})"
        ),
        "***",
    ),
)


def redact(text: str) -> str:
    """The text with obvious secrets replaced by ``***``: passwords in URLs, keys, bearer tokens.

    It is a net, not a proof, and prefers to hide too much.
    """
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text
