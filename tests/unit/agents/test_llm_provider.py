"""What can a test expect of the stub provider and of the processes that use it?"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from multiagents.testing.stub_lm import StubProvider
from tests.support.llm import run, worker_of

FORKED = """
import os, sys
from multiagents.worker_sdk.context import Context
from multiagents.agents.dspy_worker import dspy_worker
from multiagents.agents import lm
from multiagents.worker_sdk.execute import execute

@dspy_worker("echo", signature="number -> answer")
def echo(context):
    return {}

def ask(who, count):
    return all(
        execute(echo, Context({"number": f"{who}-{n}"}))["answer"] == f"{who}-{n}"
        for n in range(count)
    )

assert ask("parent", 3)
assert len(lm._models) == 1
children = []
for child in range(3):
    pid = os.fork()
    if pid == 0:
        inherited = len(lm._models)
        right = ask(f"child{child}", 15)
        os._exit(0 if right and inherited == 0 else 1)
    children.append(pid)
right = ask("parent", 15)
ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
print(right, ends)
"""

LAZY = """
import sys
import multiagents.agents.dspy_worker
from multiagents import dspy_worker, tool

@tool("look")
def look(page: int) -> str:
    return ""

dspy_worker("w", signature="a -> b", reasoning="react", tools=[look])(lambda context: {})
print("dspy" in sys.modules, "litellm" in sys.modules)
"""


def python(script: str, **environment: str) -> str:
    """The output of a fresh interpreter."""
    done = subprocess.run(
        # Python 3.12 warns about a fork beside threads; this test needs such a fork
        [
            sys.executable,
            "-W",
            "error",
            "-W",
            "ignore:This process:DeprecationWarning:",
            "-c",
            script,
        ],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def post(provider: StubProvider, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """A chat request without DSPy."""
    address = provider.url.removeprefix("http://").removesuffix("/v1")
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        headers = {"Authorization": "Bearer secret", "Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_a_worker_that_is_only_defined_does_not_load_dspy() -> None:
    """Importing and defining tools and workers loads no DSPy, which saves 1.4 s and 50 MB."""
    assert python(LAZY) == "False False"


def test_parent_and_children_get_their_own_answers(provider: StubProvider) -> None:
    """A child process makes its own model object, so no answer reaches another process."""
    provider.script({"answer": lambda inputs: inputs["number"]})
    assert python(FORKED, **provider.environment()) == "True [0, 0, 0]"


def test_an_answer_takes_less_than_five_milliseconds(provider: StubProvider) -> None:
    """The stub answers in under 5 ms, since hundreds of tests may call it."""
    run(worker_of(), text="x")
    body = provider.requests[0]
    times = []
    for _ in range(20):
        begun = time.perf_counter()
        assert post(provider, body)[0] == 200
        times.append(time.perf_counter() - begun)
    assert min(times) < 0.005  # the cost on an idle machine


def test_scripts_for_a_number_of_times_come_first(provider: StubProvider) -> None:
    """Counted scripts come first, then the newest lasting one, then a made-up answer."""
    provider.script({"sentiment": "always"})
    provider.script({"sentiment": "newest"})
    provider.script({"sentiment": "once"}, times=1)
    provider.script({"sentiment": "then"}, times=1)
    moods = [run(worker_of(), text="x")["sentiment"] for _ in range(4)]
    assert moods == ["once", "then", "newest", "newest"]


def test_faults_are_used_up_in_order(provider: StubProvider) -> None:
    """The stub plays the requested faults in order, then answers again."""
    provider.fail(500, times=2).fail(429)
    prompt = {"model": "stub", "messages": [{"role": "user", "content": "hello"}]}
    assert [post(provider, prompt)[0] for _ in range(4)] == [500, 500, 429, 200]


def test_a_prompt_of_nobody_is_answered_too(provider: StubProvider) -> None:
    """A program that calls it without DSPy gets a completion with usage."""
    prompt = {"model": "stub", "messages": [{"role": "user", "content": "hello"}]}
    status, body = post(provider, prompt)
    assert status == 200
    assert body["choices"][0]["message"]["content"] == "This is the stub model."
    assert body["usage"]["total_tokens"] > 0


def test_no_key_is_recorded(provider: StubProvider) -> None:
    """The stub records request bodies and no headers."""
    prompt = {"model": "stub", "messages": [{"role": "user", "content": "hello"}]}
    post(provider, prompt)
    assert provider.requests == [prompt]


def test_a_closed_provider_lets_hanging_requests_go() -> None:
    """Closing the provider ends its hanging requests."""
    prompt = {"model": "stub", "messages": [{"role": "user", "content": "hello"}]}
    ends: list[Exception] = []

    def ask(provider: StubProvider) -> None:
        try:
            post(provider, prompt)
        except http.client.RemoteDisconnected as error:
            ends.append(error)

    with StubProvider() as provider:
        provider.hang()
        thread = threading.Thread(target=ask, args=(provider,))
        thread.start()
        deadline = time.monotonic() + 5
        while not provider.requests:
            assert time.monotonic() < deadline, "the request never arrived"
            thread.join(0.01)
    thread.join(5)
    assert len(ends) == 1
    with pytest.raises(RuntimeError, match="not running"):
        _ = provider.url
