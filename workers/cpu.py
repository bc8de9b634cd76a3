"""What do the examples compute?

``kind="cpu"``: the work keeps a processor busy.  It goes to the `io` queue unless a worker names
another one with ``queue="cpu"``, which then needs a process of its own to serve it.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from multiagents import Context, worker

SHORT = 4
"""Shorter words are seldom keywords."""
KEYWORDS = 3
EASY = 12.0
"""Maximum words of an easy sentence."""


@worker("average_readings", kind="cpu")
def average_readings(context: Context) -> dict[str, Any]:
    """The average of the input's readings."""
    readings = context["readings"]
    return {"average": sum(readings) / len(readings)}


@worker("count_words", kind="cpu")
def count_words(context: Context) -> dict[str, Any]:
    """The length of the text."""
    return {"words": len(_words(context["text"]))}


@worker("find_keywords", kind="cpu")
def find_keywords(context: Context) -> dict[str, Any]:
    """The most frequent words; equal counts in the order of the text."""
    counted = Counter(word.lower() for word in _words(context["text"]) if len(word) >= SHORT)
    return {"keywords": [word for word, _ in counted.most_common(KEYWORDS)]}


@worker("score_readability", kind="cpu")
def score_readability(context: Context) -> dict[str, Any]:
    """True if the sentences are short."""
    sentences = [part for part in re.split(r"[.!?]+", context["text"]) if part.strip()]
    words = len(_words(context["text"])) / max(1, len(sentences))
    return {"words_per_sentence": round(words, 1), "level": "easy" if words <= EASY else "hard"}


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text)
