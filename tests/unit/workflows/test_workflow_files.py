"""What do definition files promise: folders, bare words of YAML, depth and size?"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import jsonschema
import pytest

from multiagents.core.exceptions import InvalidWorkflow
from multiagents.workflows.files import json_schema, load_definition, load_file, load_folder


def test_a_folder_reports_the_mistakes_of_all_its_files(tmp_path: Path) -> None:
    """Each mistake has file and place; other files and hidden ones are not read."""
    (tmp_path / "a.yaml").write_text("name: a\nsteps: [{name: s, worker: w, depends_on: x}]")
    (tmp_path / "b.json").write_text('{"name": "b", "steps": [{"name": "s"}]}')
    (tmp_path / "c.yml").write_text("name: c\nsteps: [")
    (tmp_path / "d.json").write_text('{"name": "d",}')
    (tmp_path / "e.json").write_text('{"name": "good", "steps": [{"name": "s", "worker": "w"}]}')
    (tmp_path / "f.yaml").write_text("name: good\nsteps: [{name: s, worker: w}]")
    (tmp_path / "g.json").write_bytes(b"\xff")
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / ".hidden.json").write_text("nothing")
    with pytest.raises(InvalidWorkflow) as raised:
        load_folder(tmp_path)
    starts = [
        "a.yaml: a.steps[0] 's': waits for unknown step 'x'",
        "b.json: b.steps[0] 's': 'worker' is missing",
        "c.yml: cannot be read: line ",
        "d.json: cannot be read: ",
        "g.json: cannot be read: ",
        "f.yaml: e.json already defines workflow 'good'",
    ]
    assert len(raised.value.errors) == len(starts)
    for error, start in zip(raised.value.errors, starts, strict=True):
        assert error.startswith(start)


def test_a_folder_gives_its_workflows_by_file_name(tmp_path: Path) -> None:
    """The order is stable; an empty folder gives none, and a missing folder is an error."""
    assert load_folder(tmp_path) == []
    for name in ("b", "a"):
        document = {"name": name, "steps": [{"name": "s", "worker": "w"}]}
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    assert [workflow.name for workflow in load_folder(tmp_path)] == ["a", "b"]
    with pytest.raises(InvalidWorkflow, match="is not a folder"):
        load_folder(tmp_path / "missing")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"name": "a", "name": "b"}', "key 'name' appears twice in one object"),
        (
            "a.yaml",
            "name: a\nsteps:\n- name: s\n  worker: w\n  worker: v\n",
            "line 5, column 3: key 'worker' appears twice",
        ),
        ("a.toml", "", "unknown kind of file; expected .json, .yaml, .yml"),
        ("a.yaml", "name: !!python/object:os.system {}", "could not determine a constructor"),
    ],
)
def test_a_file_that_is_ambiguous_or_unsafe_is_refused(
    name: str, text: str, message: str, tmp_path: Path
) -> None:
    """Duplicate keys and YAML that makes objects are refused."""
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidWorkflow) as raised:
        load_file(tmp_path / name)
    assert message in str(raised.value)
    assert name in str(raised.value)


def test_yaml_merge_keys_may_override(tmp_path: Path) -> None:
    """``<<`` may repeat keys, also through an alias defined earlier."""
    (tmp_path / "a.yaml").write_text(
        "name: a\n"
        "steps:\n"
        "- &one {name: one, worker: w, queue: slow}\n"
        "- &two {<<: *one, name: two}\n"
        "- {<<: *two, name: three, queue: fast}\n"
    )
    steps = load_file(tmp_path / "a.yaml").steps
    assert [(step.name, step.worker, step.queue) for step in steps] == [
        ("one", "w", "slow"),
        ("two", "w", "slow"),
        ("three", "w", "fast"),
    ]


@pytest.mark.parametrize(
    ("text", "mistakes"),
    [
        (
            "name: no\nsteps: [{name: on, worker: 2025-01-31}]",
            [
                "workflow: name should be a valid string, not False; put it in quotes: 'no'"
                " (line 1, column 7)",
                "workflow.steps[0]: name should be a valid string, not True; put it in quotes:"
                " 'on' (line 2, column 16)",
                "workflow.steps[0]: worker should be a worker's name, a @worker function, a Celery"
                " task or task(...), not date; put it in quotes: '2025-01-31'"
                " (line 2, column 28)",
            ],
        ),
        (
            "name: a\ntags: [b, 2024]\ndescription: 1.10\n"
            "steps:\n- parallel:\n  - {name: s, worker: w, when: yes}\n  depends_on: off",
            [
                "tags[1] should be a valid string, not 2024; put it in quotes: '2024' (line 2,"
                " column 11)",
                "description should be a valid string, not 1.1; put it in quotes: '1.10' (line 3,"
                " column 14)",
                "depends_on should be a list, not False; put it in quotes: 'off' (line 7,"
                " column 15)",
                "when should be a valid string, not True; put it in quotes: 'yes' (line 6, column"
                " 32)",
            ],
        ),
        (
            "name: a\nsteps: [{name: s, worker: {task: t, args: [2], kwargs: {on: no}}}]",
            [
                "worker.args[0] should be a valid string, not 2; put it in quotes: '2' (line 2,",
                "worker.kwargs.on should be a valid string, not False; put it in quotes: 'no'",
            ],
        ),
        ("name: a\non: b\nsteps: [{name: s, worker: w}]", ["a: unknown key 'on'; known: name"]),
        (
            "name: a\nsteps: [{name: s, worker: w, timeout_s: -1}]",
            ["timeout_s should be greater than 0, not -1"],
        ),
        (
            "name: a\nsteps: [{name: 2025-02-30, worker: w}]",
            ["line 2, column 16: '2025-02-30' is not a value: day is out of range for month"],
        ),
    ],
)
def test_a_bare_word_of_yaml_that_is_no_text_is_named_with_its_place(
    text: str, mistakes: list[str], tmp_path: Path
) -> None:
    """``no``, ``on``, ``yes``, dates and numbers need quotes where text is expected."""
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InvalidWorkflow) as raised:
        load_file(tmp_path / "a.yaml")
    assert len(raised.value.errors) == len(mistakes)
    for error, mistake in zip(raised.value.errors, mistakes, strict=True):
        assert mistake in error
        assert error.startswith("a.yaml: ")


def test_a_bare_word_that_is_meant_is_taken(tmp_path: Path) -> None:
    """``pivot: yes`` makes a pivot."""
    (tmp_path / "a.yaml").write_text("name: a\nsteps: [{name: s, worker: w, pivot: yes}]")
    assert load_file(tmp_path / "a.yaml").steps[0].pivot


def test_keys_for_anchors_and_notes_stand_at_the_top(tmp_path: Path) -> None:
    """The schema allows them, as Compose does, and the version stays the same."""
    (tmp_path / "a.yaml").write_text(
        "name: a\nx-slow: &slow {queue: slow, retry: 5}\nx-owner: the shop's team\n"
        "steps: [{<<: *slow, name: s, worker: w}]"
    )
    (tmp_path / "b.yaml").write_text(
        "name: a\nsteps: [{queue: slow, retry: 5, name: s, worker: w}]"
    )
    noted, bare = load_file(tmp_path / "a.yaml"), load_file(tmp_path / "b.yaml")
    assert noted == bare
    assert noted.version == bare.version
    document = {"name": "a", "x-note": [1], "steps": [{"name": "s", "worker": "w"}]}
    validator = jsonschema.Draft202012Validator(json_schema())
    assert validator.is_valid(document)
    assert load_definition(document).names == ("s",)
    document["steps"][0]["x-note"] = 1
    assert not validator.is_valid(document)
    with pytest.raises(InvalidWorkflow, match="unknown key 'x-note'"):
        load_definition(document)


_LAUGHS = "\n".join(
    ["x-0: &a0 {k0: v}"] + [f"x-{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20)]
)
_MERGES = "\n".join(
    ["x-0: &a0 {k0: v}"] + [f"x-{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 40)]
)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.json", "[" * 100_000 + "]" * 100_000, "is nested too deep"),
        ("a.json", '{"steps": ' * 100_000 + "1" + "}" * 100_000, "is nested too deep"),
        ("a.yaml", "[" * 5_000 + "]" * 5_000, "line 1, column 101: is nested deeper than 100"),
        ("a.yaml", "\n".join(f"{' ' * n}a:" for n in range(2_000)), "deeper than 100 levels"),
        ("a.yaml", _LAUGHS, "has more than 200,000 values with aliases expanded"),
        ("a.yaml", _MERGES, "has more than 200,000 values with aliases expanded"),
        (
            "a.yaml",
            "steps: &a [*a]",
            "line 1, column 12: the alias is inside the value that it repeats",
        ),
        ("a.yaml", "x-a: &a {b: *a}", "the alias is inside the value that it repeats"),
        ("a.json", '{"a": 1, "b": 2, "a": 3}', "key 'a' appears twice"),
        ("a.json", f'{{"name": {"9" * 5_000}}}', "Exceeds the limit"),
    ],
)
def test_a_file_that_is_too_deep_or_too_large_is_named(
    name: str, text: str, reason: str, tmp_path: Path
) -> None:
    """The error comes before the interpreter's recursion or memory limit."""
    (tmp_path / name).write_text(text)
    began = time.process_time()
    with pytest.raises(InvalidWorkflow, match=rf"{re.escape(name)}: cannot be read") as raised:
        load_file(tmp_path / name)
    assert reason in str(raised.value)
    with pytest.raises(InvalidWorkflow, match=rf"{re.escape(name)}: cannot be read"):
        load_folder(tmp_path)
    assert time.process_time() - began < 10


def test_a_missing_file_is_refused_in_words(tmp_path: Path) -> None:
    """The error has the name and the system's reason."""
    with pytest.raises(InvalidWorkflow, match=r"none\.yaml: cannot be read: No such file"):
        load_file(tmp_path / "none.yaml")
