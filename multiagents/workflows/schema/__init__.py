"""What may a workflow file contain, as a JSON Schema?

The schema is generated from the models, with the short forms that only a document has.  The file
beside this one is the published copy, for editors and other programs.  A test keeps the two equal,
and ``python -m multiagents.workflows.schema`` prints the expected file.

A schema cannot check the whole graph (cycles, unknown steps, conditions): `files.load_definition`
does.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from multiagents.core.policies import ERROR_KEYS
from multiagents.workflows.parse import NOTE_KEYS, SCHEMA_KEY
from multiagents.workflows.validate import STEP_NAME, WORKFLOW_NAME
from multiagents.workflows.workflow import Workflow

DIALECT = "https://json-schema.org/draft/2020-12/schema"
FILE_NAME = "workflow.schema.json"


def json_schema() -> dict[str, Any]:
    """The schema of a workflow definition in JSON or YAML."""
    schema: dict[str, Any] = _untitled(Workflow.model_json_schema())
    schema["properties"]["name"]["pattern"] = f"^{WORKFLOW_NAME}$"
    schema["properties"]["steps"]["items"] = _either("Step", "Parallel")
    schema["properties"][SCHEMA_KEY] = {"type": "string"}
    schema["patternProperties"] = {f"^{NOTE_KEYS}": {}}
    definitions = schema["$defs"]
    _admit_short_forms(definitions["Step"]["properties"])
    _admit_one_error(definitions["RetryPolicy"]["properties"])
    definitions["Parallel"] = _parallel(definitions["Step"]["properties"]["depends_on"])
    return {SCHEMA_KEY: DIALECT, "title": "multiagents workflow", **schema}


def published() -> str:
    """The text of the published file."""
    return files(__name__).joinpath(FILE_NAME).read_text(encoding="utf-8")


def text() -> str:
    """The expected text of the published file."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _admit_short_forms(step: dict[str, Any]) -> None:
    step["name"]["pattern"] = f"^{STEP_NAME}$"
    name = {"type": "string", "minLength": 1, "maxLength": 128}
    step["depends_on"] = {
        "description": "Steps that must have ended before; without it: the element before this"
        " one (a step, or all branches of a parallel group); []: none.",
        "anyOf": [name, {"type": "array", "items": name, "uniqueItems": True}, {"type": "null"}],
    }
    for key in ("retry", "compensation_retry"):
        step[key]["anyOf"].append(
            {"description": "max_attempts alone", "type": "integer", "minimum": 1, "maximum": 1000}
        )


def _admit_one_error(policy: dict[str, Any]) -> None:
    name = {"type": "string", "minLength": 1}
    for key, said in zip(ERROR_KEYS, ("are", "are not"), strict=True):
        policy[key] = {
            "description": f"Classes of errors that {said} retried, subclasses included: the"
            " plain name for Python's and this package's classes, with the module for others"
            " (requests.ConnectionError).",
            "anyOf": [name, {"type": "array", "items": name}, {"type": "null"}],
        }


def _parallel(depends_on: dict[str, Any]) -> dict[str, Any]:
    return {
        "description": "Steps that run at the same time; the next element waits for all of them.",
        "type": "object",
        "properties": {
            "parallel": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/Step"}},
            "depends_on": depends_on,
        },
        "required": ["parallel"],
        "additionalProperties": False,
    }


def _either(*names: str) -> dict[str, Any]:
    return {"anyOf": [{"$ref": f"#/$defs/{name}"} for name in names]}


def _untitled(node: Any) -> Any:
    """The schema without the titles that pydantic makes of field names."""
    if isinstance(node, dict):
        kept = {k: _untitled(v) for k, v in node.items() if not _is_title(k, v)}
        return _reflowed(kept)
    return [_untitled(item) for item in node] if isinstance(node, list) else node


def _is_title(key: str, value: object) -> bool:
    return key == "title" and isinstance(value, str)


def _reflowed(node: dict[str, Any]) -> dict[str, Any]:
    """The node with its docstring as a description of one line, without markup."""
    if isinstance(node.get("description"), str):
        node["description"] = " ".join(node["description"].replace("`", "").split())
    return node
