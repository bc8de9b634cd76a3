"""What does a worker do whose work is a model's answer?

Every model call goes over real HTTP to the stub provider.
"""

from __future__ import annotations

import asyncio
import enum
import functools
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
import structlog
from pydantic import BaseModel

from multiagents import dspy_worker, hosting, retry, timeout, tool
from multiagents.core.exceptions import InvalidInput, NonRetryableError
from multiagents.testing.provider import StubProvider
from multiagents.worker_sdk import registry
from multiagents.worker_sdk.context import Context
from multiagents.worker_sdk.tools import bind
from tests.support.llm import run, worker_of

MOOD = "text -> sentiment: str, confidence: float"


class Issue(BaseModel):
    """A class that a signature's text names."""

    title: str
    urgency: Literal["low", "high"]


class Colour(enum.Enum):
    """Another."""

    RED = "red"
    BLUE = "blue"


@tool("web_search")
async def search_web(query: str) -> list[str]:
    """Search the web for information."""
    return [f"page about {query}"]


@tool("database_query")
def query_database(table: str, filters: dict) -> dict:  # type: ignore[type-arg]
    """Query database with filters."""
    return {"results": [table, filters]}


def asked(provider: StubProvider, number: int = -1) -> str:
    """The last message of a request."""
    return str(provider.requests[number]["messages"][-1]["content"])


def test_a_model_answers_and_the_function_adds_to_the_answer(provider: StubProvider) -> None:
    """The inputs are in the context: the function sees the answer in the context and adds to it."""

    @dspy_worker("text_classifier", signature=MOOD)
    async def classify_text(context: dict[str, Any]) -> dict[str, Any]:
        return {"needs_review": context.get("confidence", 0) < 0.7}

    provider.script({"sentiment": "negative", "confidence": 0.4})
    assert run(classify_text, text="It broke again.") == {
        "sentiment": "negative",
        "confidence": 0.4,
        "needs_review": True,
    }
    assert "It broke again." in asked(provider)


def test_a_function_supplies_the_inputs_that_the_context_lacks(provider: StubProvider) -> None:
    """An input is missing: the function is called first; what else it returns is kept."""
    import dspy

    class WorkerSignature(dspy.Signature):  # type: ignore[misc]  # dspy has no types
        """Define structured input/output for LLM."""

        input_field = dspy.InputField(desc="Input description")
        output_field = dspy.OutputField(desc="Output description")

    @dspy_worker("llm_worker", signature=WorkerSignature)
    async def llm_worker(context: dict[str, Any]) -> dict[str, Any]:
        return {"input_field": context.get("input"), "processing_type": "llm_analysis"}

    @llm_worker.post_process
    async def validate_llm_output(
        dspy_result: dict[str, Any], original_context: dict[str, Any]
    ) -> dict[str, Any]:
        return {**dspy_result, "of": original_context["input"], "at": "now"}

    provider.script({"output_field": "done"})
    assert run(llm_worker, input="raw data") == {
        "output_field": "done",
        "processing_type": "llm_analysis",
        "of": "raw data",
        "at": "now",
    }
    assert "[[ ## input_field ## ]]\nraw data" in asked(provider)


def test_a_chain_of_thought_keeps_its_reasoning(provider: StubProvider) -> None:
    """The result holds the reasoning, and lists as lists."""

    @dspy_worker(
        "summarizer",
        signature="document -> summary: str, key_points: list[str]",
        reasoning="chain_of_thought",
    )
    async def summarize_document(context: dict[str, Any]) -> dict[str, Any]:
        return {"word_count": len(context.get("summary", "").split())}

    provider.script({"summary": "two words", "key_points": ["a", "b"], "reasoning": "because"})
    result = run(summarize_document, document="long")
    assert result == {
        "reasoning": "because",
        "summary": "two words",
        "key_points": ["a", "b"],
        "word_count": 2,
    }


def test_react_calls_plain_and_async_tools(provider: StubProvider) -> None:
    """Each tool's result is the model's next observation; the trajectory is not in the result."""

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
    """A tool's connection pool, bound to a loop, works in every step of the process."""
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
    """The model is shown its name, text and arguments, and what it returns."""
    odd, name, args, told = ODD_TOOLS[kind]
    worker = worker_of(signature="question -> answer", reasoning="react", tools=[odd])
    worker.check()
    bound = bind(odd, worker="w")
    assert (bound.name, list(bound.args)) == (name, list(args))
    assert "order" in bound.desc or "weather" in bound.desc
    assert asyncio.run(bound.acall(**args)) == told


def test_a_tool_that_cannot_be_bound_is_named(provider: StubProvider) -> None:
    """With its worker, its place and why."""

    def unreadable(number: Nowhere) -> str:  # type: ignore[name-defined]  # noqa: F821
        return "never"

    worker = worker_of(signature="question -> answer", reasoning="react", tools=[unreadable])
    line = unreadable.__code__.co_firstlineno
    wanted = rf"tool 'unreadable' \(.*test_llm_workers.py:{line}\): NameError.*Nowhere"
    with pytest.raises(InvalidInput, match=wanted):
        worker.check()
    other = worker_of(signature="question -> answer", reasoning="react", tools=[object()])
    with pytest.raises(InvalidInput, match="a object cannot be called"):
        other.check()


def test_a_worker_that_cannot_run_does_not_stop_the_others(
    provider: StubProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is wrong with it is logged, and its process starts."""

    def check() -> None:
        raise RuntimeError("anything")

    broken = worker_of(signature="question -> answer")
    sound = worker_of(signature="question -> answer")
    monkeypatch.setattr(broken, "check", check)
    monkeypatch.setattr(registry._registry, "_workers", {"broken": broken, "sound": sound})
    with structlog.testing.capture_logs() as said:
        hosting._load_language_models()
    assert [(line["worker"], line["event"]) for line in said] == [
        (broken.name, "this worker cannot run")
    ]
    assert sound._program is not None


def test_an_error_of_a_tool_is_told_without_its_place(provider: StubProvider) -> None:
    """The model reads type and message: no traceback, no file, no secret."""

    def broken(page: int) -> str:
        raise RuntimeError("page 3 is missing, key sk-abcdefghijklmnopqrstuv1234")

    worker = worker_of(signature="question -> answer", reasoning="react", tools=[broken])
    assert "answer" in run(worker, question="why")
    assert "Execution error in broken: RuntimeError: page 3 is missing" in asked(provider)
    assert "Traceback" not in asked(provider)
    assert ".py" not in asked(provider)
    assert "abcdefghijkl" not in asked(provider)


def test_a_wrong_argument_is_an_observation_too(provider: StubProvider) -> None:
    """The model may name an argument that a tool (or finish) does not have."""
    worker = worker_of(signature="question -> answer", reasoning="react", tools=[search_web])
    provider.script_tool("web_search", {"nonsense": 1})
    provider.script_tool("finish", {"answer": "42"})
    assert "answer" in run(worker, question="why")
    assert "Execution error in web_search: ValueError: Arg nonsense" in asked(provider)
    assert "Traceback" not in asked(provider)


def test_outputs_have_the_types_of_the_signature(provider: StubProvider) -> None:
    """Numbers, lists, choices and the module's own classes arrive as JSON values of their kind."""
    worker = worker_of(
        lambda context: None,
        signature="mail -> issue: Issue, colour: Colour, days: int, sure: bool,"
        " tags: list[str], counts: dict[str, int], when: Optional[float]",
    )
    provider.script({"colour": "blue", "counts": {"a": 1}, "when": 2.5})
    result = run(worker, mail="Help")
    assert result["issue"]["urgency"] == "low"
    assert result["colour"] == "blue"
    assert (type(result["days"]), result["sure"]) == (int, True)
    assert [type(tag) for tag in result["tags"]] == [str, str]
    assert (result["counts"], result["when"]) == ({"a": 1}, 2.5)


def test_a_plain_function_works_like_an_async_one(provider: StubProvider) -> None:
    """Beside the loop, in a thread, with the context's attributes."""
    threads = []

    def finish(context: Context) -> dict[str, Any]:
        with pytest.raises(RuntimeError, match="no running event loop"):
            threads.append(asyncio.get_running_loop())
        return {"step": context.step, "attempt": context.attempt}

    worker = worker_of(finish)
    worker.post_process(lambda result, context: {**result, "keys": sorted(context)})
    result = asyncio.run(worker(Context({"text": "x"}, step="classify", attempt=2)))
    assert (result["step"], result["attempt"]) == ("classify", 2)
    assert result["keys"] == ["text"]


def test_a_missing_input_is_named(provider: StubProvider) -> None:
    """Neither the context nor the function has it: the error says so, and nothing was asked."""
    worker = worker_of(signature="order, mood -> reply")
    with pytest.raises(NonRetryableError, match="lacks the input field 'mood'") as raised:
        run(worker, order="A1")
    assert not raised.value.clean  # the function was called
    assert provider.requests == []


def test_a_missing_input_before_anything_was_called_is_clean(provider: StubProvider) -> None:
    """The function runs after the model, so nothing has happened."""
    worker = worker_of(signature="order, mood -> reply", function_first=False)
    with pytest.raises(NonRetryableError, match="lacks the input fields 'order', 'mood'") as raised:
        run(worker)
    assert raised.value.clean


def test_an_input_with_a_default_may_be_missing(provider: StubProvider) -> None:
    """It does not decide on which side the function stands."""
    import dspy

    class Reply(dspy.Signature):  # type: ignore[misc]  # dspy has no types
        """Write a reply."""

        mail: str = dspy.InputField()
        tone: str = dspy.InputField(default="friendly")
        reply: str = dspy.OutputField()

    worker = worker_of(lambda context: {"seen": "reply" in context}, signature=Reply)
    assert run(worker, mail="Hi")["seen"] is True
    assert "[[ ## tone ## ]]\nfriendly" in asked(provider)


def test_function_first_prepares_an_input_that_the_context_has(provider: StubProvider) -> None:
    """Said once, there is no doubt which text the model gets."""
    worker = worker_of(lambda context: {"text": context["text"].strip()}, function_first=True)
    run(worker, text="  spaces  ")
    assert "[[ ## text ## ]]\nspaces\n" in asked(provider)


def test_a_prepared_input_is_never_lost_silently(provider: StubProvider) -> None:
    """Not said, the model got the raw text: an error tells how to say it."""
    worker = worker_of(lambda context: {"text": context["text"].strip()})
    with pytest.raises(NonRetryableError, match="function_first=True"):
        run(worker, text="  spaces  ")


def test_a_function_must_return_a_dict(provider: StubProvider) -> None:
    """What cannot be merged is refused by name."""
    with pytest.raises(NonRetryableError, match="returned str; expected a dict"):
        run(worker_of(lambda context: "done"), text="x")


def test_dates_become_text(provider: StubProvider) -> None:
    """A result is JSON: what the model gives as a time is stored as ISO 8601."""
    worker = worker_of(signature="text -> due: datetime.datetime")
    result = run(worker, text="x")
    assert datetime.fromisoformat(result["due"]) == datetime(2025, 1, 31, 12, tzinfo=UTC)


def test_it_is_a_worker_like_any(provider: StubProvider) -> None:
    """The registry, the llm queue, @retry and @timeout."""

    @timeout(40)
    @dspy_worker("marked", signature=MOOD, queue="gpu")
    @retry(max_attempts=7)
    async def marked(context: dict[str, Any]) -> dict[str, Any]:
        """Says how it sounds."""
        return {}

    assert registry.find("marked") is marked
    assert (marked.is_async, marked.kind, marked.home_queue) == (True, "llm", "gpu")
    assert worker_of().home_queue == "llm"
    assert marked.retry is not None
    assert (marked.retry.max_attempts, marked.timeout_s) == (7, 40)
    assert marked.__doc__ == "Says how it sounds."
    assert asyncio.run(marked.plain({})) == {}


def test_many_steps_ask_at_once(provider: StubProvider) -> None:
    """Ten steps on one loop wait for the model together, not one after the other."""
    provider.delay(0.2)
    worker = worker_of()

    async def ten() -> float:
        begun = asyncio.get_running_loop().time()
        await asyncio.gather(*(worker({"text": str(number)}) for number in range(10)))
        return asyncio.get_running_loop().time() - begun

    worker.check()
    assert asyncio.run(ten()) < 1.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reasoning": "guess"}, "unknown reasoning 'guess'; expected one of: predict"),
        ({"tools": [search_web]}, 'set reasoning="react"'),
        ({"tools": [search_web, search_web], "reasoning": "react"}, "web_search stands twice"),
        ({"reasoning": "react", "max_iters": 0}, "max_iters=0"),
        ({"lm_settings": {"num_retries": 3}}, "sets num_retries"),
        ({"lm_settings": {"cache": True}}, "sets cache"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_written(
    options: dict[str, Any], message: str
) -> None:
    """Each mistake is named, with what to do, before anything runs."""
    with pytest.raises(InvalidInput, match=message):
        worker_of(**options)


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        ("no arrow", "cannot be read"),
        ("text -> answer: Unheard", "cannot be read: Unknown name: Unheard"),
        ("config -> answer", "input field 'config', a name that DSPy keeps"),
        (7, "expected a dspy.Signature class"),
    ],
)
def test_a_bad_signature_is_refused_by_check_and_cleanly_at_a_run(
    provider: StubProvider, signature: Any, message: str
) -> None:
    """`check` reads it at once; a run does nothing before it is read."""
    worker = worker_of(signature=signature)
    with pytest.raises(InvalidInput, match=message):
        worker.check()
    with pytest.raises(NonRetryableError, match=message) as raised:
        run(worker, text="x", config="y")
    assert raised.value.clean


def test_a_tool_stays_the_function_it_was() -> None:
    """@tool gives a name and nothing else."""

    @tool
    def add(one: int, two: int) -> int:
        return one + two

    assert add(1, 2) == 3
    assert add.tool_name == "add"  # type: ignore[attr-defined]  # set by the decorator
    assert search_web.tool_name == "web_search"  # type: ignore[attr-defined]  # likewise


@pytest.mark.parametrize("name", ["two words", "finish", "", "9lives"])
def test_a_tool_name_that_models_refuse_is_refused(name: str) -> None:
    """Providers take letters, digits, '_' and '-'; finish ends a loop."""
    with pytest.raises(InvalidInput, match="a tool cannot be called"):
        tool(name)(lambda: None)
