"""Is a regular expression found in a text, and what does that cost?

Rust's engine does the search: its time is linear in the text, while Python's may be exponential.
It compiles the pattern at each call, which costs more than the search, and holds the interpreter's
lock meanwhile.  So the cost is estimated from the pattern before the call.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from multiagents.workflows.cel.values import Spend

if TYPE_CHECKING:
    from cel import Program

_PIECE = re.compile(
    r"(?P<class>\[\^?\]?(?:\\.|[^\]\\])*\])|(?P<escape>\\[pPwWdDsSbB]|\\.)"
    r"|(?P<count>\{\d+(?:,\d*)?\})|(?P<other>.)",
    re.DOTALL,
)
_UNICODE = frozenset({"\\p", "\\P", "\\w", "\\W", "\\d", "\\D", "\\s", "\\S"})
_UNICODE_COST = 8
"""A class of Unicode has hundreds of ranges."""
_OPERATIONS = 100
"""The cost of compiling a piece of a pattern: 0.05 ms, measured with ``\\w+@\\w+``."""


def matches(text: str, pattern: str, spend: Spend) -> bool:
    """Whether the pattern is found in the text.  Raises ValueError for an invalid pattern."""
    pieces = complexity(pattern)
    spend(pieces * _OPERATIONS + len(text) * pieces // 256)
    try:
        return bool(_matcher().execute({"text": text, "pattern": pattern}))
    except (RuntimeError, ValueError):
        raise ValueError("is not a regular expression in RE2 syntax") from None


@lru_cache(maxsize=1)
def _matcher() -> Program:
    from cel import compile as compile_cel  # 0.1 s: the package imports its own command line

    return compile_cel("text.matches(pattern)")


@lru_cache(maxsize=1024)
def complexity(pattern: str) -> int:
    """The number of pieces of a pattern, with counted repetitions expanded."""
    sums, last = [1], 0
    for found in _PIECE.finditer(pattern):
        text = found.group()
        if found["count"]:
            sums[-1] += last * (max(map(int, re.findall(r"\d+", text[:12]))) - 1)
        elif text == "(":
            sums.append(1)
        elif text == ")" and len(sums) > 1:
            last = sums.pop()
            sums[-1] += last
        else:
            last = _UNICODE_COST if text in _UNICODE or found["class"] else 1
            sums[-1] += last
    return sum(sums)
