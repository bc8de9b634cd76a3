"""How do several language-model steps work on one request?

    python -m examples.customer_support
    MULTIAGENTS_LM=gemini/gemini-2.5-flash GEMINI_API_KEY=... python -m examples.customer_support

Sentiment, then intent, then a summary of the customer's history; each step reads the
results before it.  The types of the fields in a signature limit the model to the known choices.
"""

from __future__ import annotations

import asyncio
from typing import Any

import multiagents
from multiagents import WorkflowBuilder
from multiagents.testing.sandbox import sandbox

REQUEST: dict[str, Any] = {
    "text": "The lamp arrived with a crack, for the second time. I want my money back.",
    "history": [
        {"item": "desk", "amount": 240.0, "status": "delivered"},
        {"item": "lamp", "amount": 39.9, "status": "returned"},
        {"item": "lamp", "amount": 39.9, "status": "delivered"},
    ],
}
ANSWERS = {
    "sentiment": "negative",
    "urgency": 4,
    "intent": "return",
    "summary": lambda inputs: f"A good customer with a broken lamp ({inputs['figures']}).",
    "next_action": "Refund the lamp and apologise.",
}
"""The answers of the stub; a real model writes its own."""

support = (
    WorkflowBuilder("customer_support", description="Understand what a customer wants")
    .add_step("sentiment", "analyze_sentiment")
    .add_step("intent", "detect_intent")
    .add_step("history", "summarize_history")
    .build()
    .register()
)


async def main() -> None:
    """Send one request through the three steps."""
    with sandbox(imports=["workers.llm"], answers=ANSWERS):
        result = multiagents.start_saga.delay("customer_support", REQUEST)
        result.get(timeout=180)
        found = multiagents.sagas.get(result.id)["step_results"]
        feeling, history = found["sentiment"], found["history"]
        print(f"customer: {REQUEST['text']}")
        print(f"sentiment: {feeling['sentiment']}, urgency {feeling['urgency']} of 5")
        print(f"intent: {found['intent']['intent']}")
        print(f"orders: {history['orders']}, returned: {history['returned']}")
        print(f"summary: {history['summary']}")
        print(f"next: {history['next_action']}")


if __name__ == "__main__":
    asyncio.run(main())
