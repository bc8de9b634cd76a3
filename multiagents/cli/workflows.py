"""Which workflows are there, and is this definition right?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from multiagents.cli.errors import OK, WRONG_USE
from multiagents.cli.fleet import known_of
from multiagents.cli.output import Json, console, emit, emit_each, say, table
from multiagents.cli.session import connect

Name = Annotated[str, typer.Argument(metavar="NAME", help="The workflow's name.")]
Files = Annotated[
    list[Path],
    typer.Argument(metavar="FILE...", help="JSON or YAML files of workflows, or folders."),
]


def list_(json_output: Json = False) -> None:
    """List the workflows that running workers have published."""
    session = connect()
    catalog, service = session.runtime.catalog, session.runtime.host.service
    found = [
        session.run(service.find_workflow(name)) for name in session.run(catalog.workflow_names())
    ]
    rows = [
        {
            "name": workflow.name,
            "version": workflow.version,
            "steps": list(workflow.by_name),
            "tags": list(workflow.tags),
            "description": workflow.description,
        }
        for workflow in found
    ]
    if json_output:
        emit_each(rows)
    elif rows:
        cells = [(r["name"], r["version"], ", ".join(r["steps"]), r["description"]) for r in rows]
        console().print(table(("WORKFLOW", "VERSION", "STEPS", "DESCRIPTION"), cells))
    else:
        known = known_of(session)
        say(f"no workflows are published; start a worker that registers some: {known.start()}")


def show(name: Name, json_output: Json = False) -> None:
    """Show a published workflow's definition, as a file would hold it."""
    from multiagents.orchestrator.definitions import to_plain

    session = connect()
    workflow = session.run(session.runtime.host.service.find_workflow(name))
    plain = to_plain(workflow)
    if not workflow.examples and (found := session.run(session.runtime.catalog.examples(name))):
        plain["examples"] = found
    if json_output:
        emit(plain)
    else:
        say(json.dumps(plain, indent=2, ensure_ascii=False))


def validate(files: Files, json_output: Json = False) -> None:
    """Check definition files; needs no server.

    Every mistake is named with its place. Exit code 2 if there is one.
    """
    reports = [_report(file) for given in files for file in _expanded(given)]
    for report in reports:
        if json_output:
            emit(report)
        else:
            _say(report)
    raise typer.Exit(OK if reports and all(report["ok"] for report in reports) else WRONG_USE)


def _expanded(path: Path) -> list[Path]:
    from multiagents.orchestrator.definitions import SUFFIXES

    if not path.is_dir():
        return [path]
    inside = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    return inside or [path]


def _report(file: Path) -> dict[str, Any]:
    from multiagents.core.exceptions import InvalidWorkflow
    from multiagents.orchestrator.definitions import load_file

    report: dict[str, Any] = {"file": str(file), "ok": True, "name": None, "version": None}
    try:
        workflow = load_file(file)
    except InvalidWorkflow as error:
        return {**report, "ok": False, "errors": list(error.errors or (str(error),))}
    return {**report, "name": workflow.name, "version": workflow.version, "errors": []}


def _say(report: dict[str, Any]) -> None:
    if report["ok"]:
        say(f"{report['file']}: ok, workflow {report['name']!r}, version {report['version']}")
    for error in report["errors"]:
        say(error)
