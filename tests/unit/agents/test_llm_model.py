"""Which model does a worker call, with which settings, and what stays in memory afterwards?"""

from __future__ import annotations

import pytest

from multiagents.core.settings import get_settings
from multiagents.testing.stub_lm import StubProvider
from tests.support.llm import run, worker_of


def test_model_settings_reach_the_provider(provider: StubProvider) -> None:
    """Settings that are not ours go to the model under DSPy's names."""
    run(worker_of(lm_settings={"temperature": 0.25, "max_tokens": 77}), text="x")
    assert provider.requests[-1]["temperature"] == 0.25
    assert 77 in provider.requests[-1].values()


def test_a_workers_own_model_is_asked_at_its_own_place(provider: StubProvider) -> None:
    """MULTIAGENTS_LM_API_BASE belongs to MULTIAGENTS_LM, so no other model's key goes there."""
    own = worker_of(model="openai/own", lm_settings={"api_base": provider.url})
    run(own, text="x")
    assert provider.requests[-1]["model"] == "own"


def test_a_local_server_needs_no_key(
    provider: StubProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model server on this machine works without a key, although DSPy requires one."""
    monkeypatch.delenv("OPENAI_API_KEY")
    assert "sentiment" in run(worker_of(), text="x")


def test_what_dspy_was_configured_with_is_used(
    provider: StubProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that names no model uses the program's dspy.configure, without its retries."""
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
    """A worker uses dspy's DummyLM unchanged, so it gives its answers in turn."""
    import dspy
    from dspy.utils import DummyLM

    monkeypatch.delenv("MULTIAGENTS_LM")
    get_settings.cache_clear()
    answers = [{"sentiment": "good", "confidence": "1.0"}, {"sentiment": "bad", "confidence": "0"}]
    with dspy.context(lm=DummyLM(answers)):
        moods = [run(worker_of(), text="x")["sentiment"] for _ in answers]
    assert moods == ["good", "bad"]


def test_nothing_is_kept_of_a_call(provider: StubProvider) -> None:
    """Calls leave nothing in DSPy's histories or trace, so a long-lived worker does not grow."""
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
