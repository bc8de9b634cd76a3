"""Where do LLM tests get their answers from?

From a stub of a model provider.  It serves the OpenAI chat API over real HTTP, on 127.0.0.1 and a
free port.  So tests cover the whole path of a worker: DSPy, its HTTP client, its errors.
Answers are scripted by the names of output fields, or made up (see `stub_answers`).  The stub keeps
only the body of a request: no headers, no keys.

    with StubProvider() as provider:
        provider.script({"sentiment": "negative"})
        provider.fail(429, retry_after=2)
        monkeypatch.setenv(...) for each of provider.environment()
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from multiagents.testing.stub_answers import Prompt, answer, read_prompt

MODEL = "openai/stub"
"""The stub's name in DSPy: OpenAI's protocol, and no real model."""
KEEP_REQUESTS = 1000
"""Older request bodies are dropped, so that a long demo does not fill the memory."""
GARBAGE = "Well, that is hard to say in so few words."

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    429: "rate_limit_error",
}


@dataclass
class _Script:
    fields: Mapping[str, Any]
    left: int | None


@dataclass
class _Fault:
    kind: str
    left: int
    status: int = 200
    retry_after: float | None = None
    message: str = ""
    code: str | None = None


class StubProvider:
    """An OpenAI-compatible server with scripted answers and faults.

    Starts on entry or by `start`.  Requests use up the faults in the order of their calls, before
    any answer.  Safe to use from several threads.
    """

    def __init__(self, *, port: int = 0) -> None:
        self._scripts: list[_Script] = []
        self._faults: deque[_Fault] = deque()
        self._arguments: dict[str, dict[str, Any]] = {}
        self._requests: deque[dict[str, Any]] = deque(maxlen=KEEP_REQUESTS)
        self._delay_s = 0.0
        self._closing = threading.Event()
        self._lock = threading.RLock()  # a scripted function may script the next answer
        self._port = port
        self._server: _Server | None = None

    def start(self) -> Self:
        """Starts to answer; a second call does nothing."""
        if self._server is None:
            self._closing.clear()
            self._server = _Server(("127.0.0.1", self._port), self)
            thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
            thread.name = "stub-provider"
            thread.start()
        return self

    def close(self) -> None:
        """Stops, and releases hanging requests."""
        server, self._server = self._server, None
        if server is not None:
            self._closing.set()
            server.shutdown()
            server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The base URL of the API, ending in ``/v1``: DSPy's ``api_base``."""
        if self._server is None:
            raise RuntimeError("the stub provider is not running: use it in a with block")
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def environment(self) -> dict[str, str]:
        """The variables that make a worker process use this provider."""
        return {
            "MULTIAGENTS_LM": MODEL,
            "MULTIAGENTS_LM_API_BASE": self.url,
            "OPENAI_API_KEY": "stub",
        }

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The bodies of the chat requests so far, failed ones included, oldest first."""
        with self._lock:
            return list(self._requests)

    def script(self, fields: Mapping[str, Any], *, times: int | None = None) -> Self:
        """Answers these output fields with these values from now on (or for ``times`` answers).

        A value may be a function of the prompt's input texts: ``lambda inputs: ...``.  Scripts with
        ``times`` come first, in order; among the others the newest wins.
        """
        with self._lock:
            self._scripts.append(_Script(dict(fields), times))
        return self

    def script_tool(self, name: str, arguments: Mapping[str, Any]) -> Self:
        """Calls the ReAct tool ``name`` with these arguments instead of made-up ones."""
        with self._lock:
            self._arguments[name] = dict(arguments)
        return self

    def fail(
        self,
        status: int = 500,
        times: int = 1,
        *,
        retry_after: float | None = None,
        message: str | None = None,
        code: str | None = None,
    ) -> Self:
        """Answers the next ``times`` requests with an HTTP error; ``retry_after`` in seconds."""
        text = f"the stub provider fails with {status} as scripted" if message is None else message
        return self._add(_Fault("fail", times, status, retry_after, text, code))

    def garbage(self, times: int = 1) -> Self:
        """Answers the next ``times`` requests with prose that fits no signature."""
        return self._add(_Fault("garbage", times))

    def hang(self, times: int = 1) -> Self:
        """Accepts the next ``times`` requests and answers none of them until `close`."""
        return self._add(_Fault("hang", times))

    def delay(self, seconds: float) -> Self:
        """Delays every answer by this time; 0 ends the delay."""
        self._delay_s = seconds
        return self

    def reset(self) -> Self:
        """Forgets scripts, faults and requests."""
        with self._lock:
            for kept in (self._scripts, self._faults, self._arguments, self._requests):
                kept.clear()
        return self.delay(0)

    def _add(self, fault: _Fault) -> Self:
        with self._lock:
            self._faults.append(fault)
        return self

    def _next_fault(self) -> _Fault | None:
        while self._faults and self._faults[0].left < 1:
            self._faults.popleft()
        if not self._faults:
            return None
        self._faults[0].left -= 1
        return self._faults[0]

    def _respond(self, body: dict[str, Any]) -> tuple[int, dict[str, Any], dict[str, str]] | None:
        """Status, body and headers of the answer; None: never answer."""
        with self._lock:
            self._requests.append(body)
            fault = self._next_fault()
        if self._delay_s:
            self._closing.wait(self._delay_s)
        if fault is None:
            return 200, _completion(body, self._answer(body)), {}
        if fault.kind == "garbage":
            return 200, _completion(body, GARBAGE), {}
        if fault.kind == "hang":
            self._closing.wait()
            return None
        return _error(fault)

    def _answer(self, body: dict[str, Any]) -> str:
        with self._lock:
            used: list[_Script] = []

            def find(name: str, prompt: Prompt) -> tuple[bool, Any]:
                script = self._script_for(name)
                if script is None:
                    return False, None
                used.append(script)
                value = script.fields[name]
                return True, value(prompt.inputs) if callable(value) else value

            text = answer(read_prompt(body), find, self._arguments)
            for script in {id(script): script for script in used}.values():
                if script.left is not None:
                    script.left -= 1
            return text

    def _script_for(self, name: str) -> _Script | None:
        fitting = [script for script in self._scripts if name in script.fields]
        counted = [script for script in fitting if script.left]
        lasting = [script for script in fitting if script.left is None]
        return next(iter([*counted, *reversed(lasting)]), None)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], provider: StubProvider) -> None:
        super().__init__(address, _Handler)
        self.provider = provider

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Show an error, unless the client gave up: tests of timeouts cause that."""
        import sys

        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        if self.path.endswith("/models"):
            models = [{"id": "stub", "object": "model", "created": 0, "owned_by": "multiagents"}]
            self._send(200, {"object": "list", "data": models}, {})
        else:
            self._send(404, _message(f"no such page: {self.path}", "invalid_request_error"), {})

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self.path.endswith("/chat/completions"):
            self._send(404, _message(f"no such page: {self.path}", "invalid_request_error"), {})
            return
        response = self.server.provider._respond(json.loads(raw))
        if response is None:
            self.close_connection = True
        else:
            self._send(*response)

    def _send(self, status: int, body: dict[str, Any], headers: dict[str, str]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Logs nothing: requests are in `StubProvider.requests`."""


def _completion(body: Mapping[str, Any], text: str) -> dict[str, Any]:
    read, written = len(json.dumps(body.get("messages"))) // 4, len(text) // 4 + 1
    return {
        "id": "chatcmpl-stub",
        "object": "chat.completion",
        "created": 0,
        "model": body.get("model", "stub"),
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
        },
    }


def _error(fault: _Fault) -> tuple[int, dict[str, Any], dict[str, str]]:
    headers = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
    kind = _ERROR_TYPES.get(fault.status, "server_error")
    return fault.status, _message(fault.message, kind, fault.code), headers


def _message(text: str, kind: str, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": text, "type": kind, "code": code, "param": None}}
