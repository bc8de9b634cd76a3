"""Which model does a worker ask, with what, and what is kept of it?"""

from __future__ import annotations

import pytest

from multiagents.core.settings import get_settings
from multiagents.testing.stub_lm import StubProvider
from tests.support.llm import run, worker_of


def test_model_settings_reach_the_provider(provider: StubProvider) -> None:
    """What is not ours goes to the model, as DSPy names it."""
    run(worker_of(lm_settings={"temperature": 0.25, "max_tokens": 77}), text="x")
    assert provider.requests[-1]["temperature"] == 0.25
    assert 77 in provider.requests[-1].values()


def test_a_workers_own_model_is_asked_at_its_own_place(provider: StubProvider) -> None:
    """MULTIAGENTS_LM_API_BASE belongs to MULTIAGENTS_LM: no key is sent to another's address."""
    own = worker_of(model="openai/own", lm_settings={"api_base": provider.url})
    run(own, text="x")
    assert provider.requests[-1]["model"] == "own"


def test_a_local_server_needs_no_key(
    provider: StubProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On this machine DSPy's demand for a key is answered for the user."""
    monkeypatch.delenv("OPENAI_API_KEY")
    assert "sentiment" in run(worker_of(), text="x")


def test_what_dspy_was_configured_with_is_used(
    provider: StubProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No model is named: the program's own dspy.configure counts, without its retries."""
    import dspy

    monkeypatch.delenv("MULTIAGENTS_LM")
    get_settings.cache_clear()
    mine = dspy.LM("openai/mine", api_base=provider.url, api_key="k", num_retries=3, cache=True)
    with dspy.context(lm=mine):
        run(worker_of(), text="x")
        run(worker_of(), text="x")
    assert [request["model"] for request in provider.requests] == ["mine", "mine"]
    assert mine.history == []


def test_a_double_of_the_users_is_used_as_it_is(
    provider: StubProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dspy's DummyLM gives its answers in turn."""
    import dspy
    from dspy.utils import DummyLM

    monkeypatch.delenv("MULTIAGENTS_LM")
    get_settings.cache_clear()
    answers = [{"sentiment": "good", "confidence": "1.0"}, {"sentiment": "bad", "confidence": "0"}]
    with dspy.context(lm=DummyLM(answers)):
        moods = [run(worker_of(), text="x")["sentiment"] for _ in answers]
    assert moods == ["good", "bad"]


def test_nothing_is_kept_of_a_call(provider: StubProvider) -> None:
    """A worker lives for weeks: neither DSPy's histories nor its trace grow."""
    import dspy
    from dspy.clients.base_lm import GLOBAL_HISTORY

    worker = worker_of()
    before = (len(GLOBAL_HISTORY), len(dspy.settings.trace or []))
    for _ in range(3):
        run(worker, text="same")
    assert (len(GLOBAL_HISTORY), len(dspy.settings.trace or [])) == before
    assert worker._program is not None
    assert worker._program.module.history == []
    assert len(provider.requests) == 3  # and no answer came from a cache
