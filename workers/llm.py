"""What do the examples ask a language model, on the `llm` queue?

The signature names the inputs and outputs, with types.  MULTIAGENTS_LM names the model, such as
gemini/gemini-2.5-flash with its key in GEMINI_API_KEY.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from multiagents import Context, dspy_worker


class Sentiment(StrEnum):
    """A customer's mood; a signature may name the types of its worker's module."""

    POSITIVE = "positive"
    NEUTRAL = "neutral"
    NEGATIVE = "negative"


class Intent(StrEnum):
    """A customer's intent."""

    RETURN = "return"
    COMPLAINT = "complaint"
    QUESTION = "question"
    PRAISE = "praise"


ATTEMPTS = {"max_attempts": 4, "backoff_s": 1.0}
"""Providers are often busy for a moment."""


@dspy_worker(
    "write_confirmation",
    signature="customer: str, sku: str, quantity: int, total: str -> confirmation: str",
    retry=ATTEMPTS,
    timeout_s=60,
)
def write_confirmation(context: Context) -> dict[str, Any]:
    """Write to the customer; the context has all inputs of the model."""
    return {}


@write_confirmation.post_process
def without_quotes(result: dict[str, Any], context: Context) -> dict[str, Any]:
    """Models like to put a text between quotes."""
    return {"confirmation": str(result["confirmation"]).strip().strip('"')}


@dspy_worker(
    "analyze_sentiment",
    signature="text: str -> sentiment: Sentiment, urgency: int",
    retry=ATTEMPTS,
    timeout_s=60,
)
def analyze_sentiment(context: Context) -> dict[str, Any]:
    """Return the customer's mood; runs after the model has answered."""
    return {"urgency": min(5, max(1, context["urgency"]))}


@dspy_worker(
    "detect_intent",
    signature="text: str, sentiment: Sentiment -> intent: Intent",
    reasoning="chain_of_thought",
    retry=ATTEMPTS,
    timeout_s=60,
)
def detect_intent(context: Context) -> dict[str, Any]:
    """Return the customer's intent."""
    return {}


@dspy_worker(
    "summarize_history",
    signature=(
        "figures: str, sentiment: Sentiment, intent: Intent -> summary: str, next_action: str"
    ),
    retry=ATTEMPTS,
    timeout_s=60,
)
def summarize_history(context: Context) -> dict[str, Any]:
    """Count in code, which is more reliable; the model receives the figures."""
    orders = context["history"]
    spent = sum(order["amount"] for order in orders)
    returned = sum(order["status"] == "returned" for order in orders)
    figures = f"{len(orders)} orders, {spent:.2f} EUR spent, {returned} returned"
    return {"figures": figures, "orders": len(orders), "returned": returned}
