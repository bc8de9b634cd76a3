"""Which tools does a language model call, and how are they bound and named?"""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest
import structlog

from multiagents import dspy_worker, tool
from multiagents.agents.tools import bind
from multiagents.core.exceptions import InvalidInput
from multiagents.hosting import bootstep
from multiagents.testing.stub_lm import StubProvider
from multiagents.worker_sdk import registry
from tests.support.llm import asked, run, worker_of


@tool("web_search")
async def search_web(query: str) -> list[str]:
    """Search the web for information."""
    return [f"page about {query}"]


@tool("database_query")
def query_database(table: str, filters: dict) -> dict:  # type: ignore[type-arg]
    """Query database with filters."""
    return {"results": [table, filters]}


def test_react_calls_plain_and_async_tools(provider: StubProvider) -> None:
    """Each tool's result is the model's next observation, and the result omits the trajectory."""

    @dspy_worker(
        "research_assistant",
        signature="question -> comprehensive_answer: str, sources: list[str]",
        tools=[search_web, query_database],
        reasoning="react",
        max_iters=5,
    )
    async def research_assistant(context: dict[str, Any]) -> dict[str, Any]:
        return {"source_count": len(context["sources"]), "research_complete": True}

    provider.script_tool("web_search", {"query": "sagas"})
    provider.script_tool("database_query", {"table": "papers", "filters": {"year": 1987}})
    provider.script({"comprehensive_answer": "They undo.", "sources": ["Garcia-Molina"]})
    assert run(research_assistant, question="What do sagas do?") == {
        "comprehensive_answer": "They undo.",
        "sources": ["Garcia-Molina"],
        "source_count": 1,
        "research_complete": True,
    }
    assert "page about sagas" in asked(provider)
    assert '{"results": ["papers", {"year": 1987}]}' in asked(provider)


def test_async_tools_share_the_loop_of_the_process(provider: StubProvider) -> None:
    """A tool's connection pool works in every step, because all steps share one loop."""
    loops = []

    async def look() -> str:
        loops.append(asyncio.get_running_loop())
        return "seen"

    looker = worker_of(signature="question -> answer", reasoning="react", tools=[look])
    run(looker, question="1")
    run(looker, question="2")
    assert len(loops) == 2
    assert loops[0] is loops[1]


def weather(unit: str, city: str) -> str:
    """The weather of a city."""
    return f"20 {unit} in {city}"


class Orders:
    """An object with methods, and one that is called."""

    def find(self, number: int) -> str:
        """Finds an order."""
        return f"order {number}"

    async def __call__(self, number: int) -> str:
        """Looks an order up."""
        return f"order {number}"


class Sealed(Orders):
    __slots__ = ()


ODD_TOOLS = {
    "partial": (functools.partial(weather, "C"), "weather", {"city": "Rome"}, "20 C in Rome"),
    "named partial": (
        tool("rain")(functools.partial(weather, "C")),
        "rain",
        {"city": "Rome"},
        "20 C in Rome",
    ),
    "method": (Orders().find, "find", {"number": 7}, "order 7"),
    "named method": (tool("look")(Orders().find), "look", {"number": 7}, "order 7"),
    "object": (Orders(), "Orders", {"number": 7}, "order 7"),
    "named object": (tool("ask")(Sealed()), "ask", {"number": 7}, "order 7"),
}


@pytest.mark.parametrize("kind", ODD_TOOLS)
def test_a_tool_is_whatever_can_be_called(provider: StubProvider, kind: str) -> None:
    """The model sees a tool's name, text, arguments and return type."""
    odd, name, args, told = ODD_TOOLS[kind]
    worker = worker_of(signature="question -> answer", reasoning="react", tools=[odd])
    worker.check()
    bound = bind(odd, worker="w")
    assert (bound.name, list(bound.args)) == (name, list(args))
    assert "order" in bound.desc or "weather" in bound.desc
    assert asyncio.run(bound.acall(**args)) == told


def test_a_tool_that_cannot_be_bound_is_named(provider: StubProvider) -> None:
    """The error names the tool, its worker, its place and the reason."""

    def unreadable(number: Nowhere) -> str:  # type: ignore[name-defined]  # noqa: F821
        return "never"

    worker = worker_of(signature="question -> answer", reasoning="react", tools=[unreadable])
    line = unreadable.__code__.co_firstlineno
    wanted = rf"tool 'unreadable' \(.*test_llm_tools.py:{line}\): NameError.*Nowhere"
    with pytest.raises(InvalidInput, match=wanted):
        worker.check()


def test_a_worker_that_cannot_run_does_not_stop_the_others(
    provider: StubProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process logs what is wrong with one worker, and starts."""

    def check() -> None:
        raise RuntimeError("anything")

    broken = worker_of(signature="question -> answer")
    sound = worker_of(signature="question -> answer")
    monkeypatch.setattr(broken, "check", check)
    monkeypatch.setattr(registry._registry, "_workers", {"broken": broken, "sound": sound})
    with structlog.testing.capture_logs() as said:
        bootstep._load_language_models()
    assert [(line["worker"], line["event"]) for line in said] == [
        (broken.name, "this worker cannot run")
    ]
    assert sound._program is not None


def test_an_error_of_a_tool_is_told_without_its_place(provider: StubProvider) -> None:
    """The model reads an error's type and message, without traceback, file or secrets."""

    def broken(page: int) -> str:
        raise RuntimeError("page 3 is missing, key sk-abcdefghijklmnopqrstuv1234")

    worker = worker_of(signature="question -> answer", reasoning="react", tools=[broken])
    assert "answer" in run(worker, question="why")
    assert "Execution error in broken: RuntimeError: page 3 is missing" in asked(provider)
    assert "Traceback" not in asked(provider)
    assert ".py" not in asked(provider)
    assert "abcdefghijkl" not in asked(provider)


def test_a_wrong_argument_is_an_observation_too(provider: StubProvider) -> None:
    """The model gets an error as observation if it names an unknown argument."""
    worker = worker_of(signature="question -> answer", reasoning="react", tools=[search_web])
    provider.script_tool("web_search", {"nonsense": 1})
    provider.script_tool("finish", {"answer": "42"})
    assert "answer" in run(worker, question="why")
    assert "Execution error in web_search: ValueError: Arg nonsense" in asked(provider)
    assert "Traceback" not in asked(provider)


def test_a_tool_stays_the_function_it_was() -> None:
    """@tool names a function and changes nothing else."""

    @tool
    def add(one: int, two: int) -> int:
        return one + two

    assert add(1, 2) == 3
    assert add.tool_name == "add"  # type: ignore[attr-defined]  # set by the decorator
    assert search_web.tool_name == "web_search"  # type: ignore[attr-defined]  # likewise


@pytest.mark.parametrize("name", ["two words", "finish", "", "9lives"])
def test_a_tool_name_that_models_refuse_is_refused(name: str) -> None:
    """A tool's name has letters, digits, '_' and '-', and is not 'finish', which ends a loop."""
    with pytest.raises(InvalidInput, match=r"a tool .*cannot be called"):
        tool(name)(lambda: None)
