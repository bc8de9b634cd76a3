"""What does the stub model answer to a prompt from DSPy?

Text in, text out: no sockets, no clock, no dspy.  A prompt of DSPy's chat or JSON adapter lists
its output fields with their types.  Each field gets its scripted value, else a plausible value of
its type.  For a ReAct prompt, the stub calls every tool once, in order, and then finishes.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

FINISH = "finish"
"""The tool that dspy.ReAct adds to end its loop."""

_FIELD = re.compile(r"^\d+\. `(\w+)` \((.*?)\):", re.M)
_NOTE = re.compile(r"\{(\w+)\} +# note: the value you produce (.*)")
_TOOL = re.compile(r"^\s*\(\d+\) (\w+)[.,].*?It takes arguments (\{.*\})\.$", re.M)
_HEADER = re.compile(r"^\[\[ ## (\w+) ## \]\]\n?", re.M)
_TURN = re.compile(r"\[\[ ## tool_name_\d+ ## \]\]")

_BY_TYPE = {"integer": 3, "number": 0.9, "boolean": True, "null": None}
_BY_FORMAT = {
    "date": "2025-01-31",
    "date-time": "2025-01-31T12:00:00Z",
    "time": "12:00:00",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


@dataclass(frozen=True)
class Prompt:
    """A chat request's prompt.

    ``outputs``: the JSON schema of each output field, in the prompt's order.  ``tools``: the
    arguments of each ReAct tool as ``{name: schema}``.  ``turn``: the number of earlier tool calls.
    """

    outputs: dict[str, dict[str, Any]]
    inputs: dict[str, str]
    as_json: bool = False
    tools: dict[str, dict[str, Any]] = field(default_factory=dict)
    turn: int = 0


Find = Callable[[str, Prompt], tuple[bool, Any]]
"""Gives (whether it is scripted, the value) of one output field."""


def read_prompt(body: Mapping[str, Any]) -> Prompt:
    """The prompt in a chat request's body; without output fields if DSPy did not write it."""
    messages = body.get("messages") or [{}]
    system, user = _text(messages[0]), _text(messages[-1])
    as_json = "Outputs will be a JSON object" in system or bool(body.get("response_format"))
    tools = {name: ast.literal_eval(args) for name, args in _TOOL.findall(system)}
    return Prompt(_outputs(system), _sections(user), as_json, tools, turn=len(_TURN.findall(user)))


def answer(prompt: Prompt, find: Find, arguments: Mapping[str, dict[str, Any]]) -> str:
    """The model's text; ``arguments`` are scripted tool arguments by tool name."""
    if not prompt.outputs:
        return "This is the stub model."
    values = {name: plausible(name, schema, prompt) for name, schema in prompt.outputs.items()}
    if "next_tool_name" in values:
        values |= _turn(prompt, arguments)
    for name in values:
        scripted, value = find(name, prompt)
        if scripted:
            values[name] = value
    return write(values, as_json=prompt.as_json)


def write(values: Mapping[str, Any], *, as_json: bool = False) -> str:
    """The fields in the form that the chat adapter (or the JSON adapter) reads."""
    if as_json:
        return json.dumps(values)
    sections = (f"[[ ## {name} ## ]]\n{_plain(value)}" for name, value in values.items())
    return "\n\n".join([*sections, "[[ ## completed ## ]]"])


def plausible(name: str, schema: Mapping[str, Any], prompt: Prompt) -> Any:
    """A value that the schema accepts; a text names its field and the input."""
    return _fill(schema, schema.get("$defs", {}), _sentence(name, prompt.inputs.values()))


def _turn(prompt: Prompt, arguments: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The next step of ReAct: the tools in order, then ``finish``."""
    names = [name for name in prompt.tools if name != FINISH] + [FINISH]
    name = names[min(prompt.turn, len(names) - 1)]
    made_up = {key: plausible(key, schema, prompt) for key, schema in prompt.tools[name].items()}
    return {
        "next_thought": f"Step {prompt.turn + 1} is {name}.",
        "next_tool_name": name,
        "next_tool_args": arguments.get(name, made_up),
    }


def _fill(schema: Mapping[str, Any], known: Mapping[str, Any], text: str) -> Any:
    if "$ref" in schema:
        return _fill(known[schema["$ref"].rsplit("/", 1)[-1]], known, text)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    if schema.get("anyOf"):
        return _fill(schema["anyOf"][0], known, text)
    kind = schema.get("type", "string")
    if kind == "array":
        return [_fill(schema.get("items", {}), known, text)] * 2
    if kind == "object":
        parts = schema.get("properties", {})
        return {name: _fill(part, known, text) for name, part in parts.items()}
    return _BY_TYPE.get(kind, _BY_FORMAT.get(schema.get("format", ""), text))


def _outputs(system: str) -> dict[str, dict[str, Any]]:
    """Each output field's schema, from its note in the prompt, or else from its type's name."""
    described = system.split("Your output fields are:", 1)
    if len(described) < 2:
        return {}
    listed, _, shape = described[1].partition("All interactions will be structured")
    notes = dict(_NOTE.findall(shape))
    return {name: _schema(kind, notes.get(name, "")) for name, kind in _FIELD.findall(listed)}


def _schema(kind: str, note: str) -> dict[str, Any]:
    if "JSON schema: " in note:
        return _read_schema(note.split("JSON schema: ", 1)[1])
    if "one of: " in note:
        choices = note.split("one of: ", 1)[1].rstrip('",')
        return {"enum": choices.split("; ")}
    kinds = {"int": "integer", "float": "number", "bool": "boolean"}
    return {"type": kinds.get(kind, "string")}


def _read_schema(text: str) -> dict[str, Any]:
    """A schema as the chat adapter writes it, or inside a JSON string as the JSON adapter does."""
    if text.rstrip().endswith(('"', '",')):
        text = json.loads('"' + text.rstrip().rstrip(",").removesuffix('"') + '"')
    schema: dict[str, Any] = json.loads(text)
    return schema


def _sections(user: str) -> dict[str, str]:
    """The input fields of the last message, by name."""
    parts = _HEADER.split(user)
    names, texts = parts[1::2], parts[2::2]
    sections = dict(zip(names, (text.strip() for text in texts), strict=True))
    if names:  # the last one is followed by the request to answer
        last = names[-1]
        sections[last] = sections[last].rsplit("\n\nRespond with", 1)[0].strip()
    return sections


def _sentence(name: str, inputs: Iterable[str]) -> str:
    about = " ".join(next(iter(inputs), "").split())[:60]
    words = name.replace("_", " ").capitalize()
    return f"{words} by the stub model, about: {about}" if about else f"{words} by the stub model"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)
