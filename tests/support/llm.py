"""How does a test of LLM workers run one?"""

from __future__ import annotations

from typing import Any

from multiagents.agents.dspy_worker import AnswerSettings, DSPyWorker
from multiagents.testing.stub_lm import StubProvider
from multiagents.worker_sdk.context import Context
from multiagents.worker_sdk.execute import execute
from multiagents.worker_sdk.registry import Worker


def run(worker: Worker, **data: Any) -> dict[str, Any]:
    """The worker's result for this context, run as the engine runs it."""
    return execute(worker, Context(data))


def worker_of(function: Any = None, **options: Any) -> DSPyWorker:
    """An unregistered worker, whose function adds nothing by default."""
    options.setdefault("signature", "text -> sentiment: str, confidence: float")
    settings = AnswerSettings(**options)
    return DSPyWorker(function or (lambda context: {}), "under_test", settings)


def asked(provider: StubProvider, number: int = -1) -> str:
    """The last message of a request."""
    return str(provider.requests[number]["messages"][-1]["content"])
