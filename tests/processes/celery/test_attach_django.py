"""What does `attach` bring to an app of a Django project, and leave alone in others?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from multiagents import InvalidInput
from multiagents.core.settings import Settings
from multiagents.hosting.runtime import attach
from tests.support.processes import ROOT

pytestmark = pytest.mark.processes

NOWHERE = Settings(redis_url="redis://127.0.0.1:1/0")
CELERY = """
import threading
from celery import Celery, current_app, shared_task
from multiagents import attach

app = Celery("proj", broker="redis://127.0.0.1:1/0")
{lines}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Settings and three Django apps, of which one has no sagas and one only tasks."""
    files = {
        "settings.py": "SECRET_KEY = 'x'\nINSTALLED_APPS = ['first', 'second', 'third']\n",
        "first/tasks.py": "print('first.tasks')\n",
        "first/sagas.py": "from django.apps import apps\nprint('first.sagas', apps.ready)\n",
        "second/tasks.py": "print('second.tasks')\n",
        "third/__init__.py": "",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(text)
    return tmp_path


def run(project: Path, *lines: str, fails: bool = False, django: bool = True) -> str:
    """What a process of the project prints that makes its app and goes on with these lines."""
    named = {"DJANGO_SETTINGS_MODULE": "settings"} if django else {}
    done = subprocess.run(
        [sys.executable, "-c", CELERY.format(lines="\n".join(lines))],
        cwd=project,
        env={**os.environ, **named, "PYTHONPATH": f"{ROOT}{os.pathsep}{project}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert bool(done.returncode) == fails, done.stderr
    return done.stderr if fails else done.stdout


IMPORT = "app.loader.import_default_modules()"
DISCOVER = "app.autodiscover_tasks()"


@pytest.mark.parametrize(
    "lines", [("attach(app)", DISCOVER, IMPORT), (DISCOVER, "attach(app)", IMPORT)]
)
def test_workers_import_the_sagas_of_every_django_app(project: Path, lines: list[str]) -> None:
    """Whichever stands first, with Django ready; an app without sagas is none the worse."""
    found = run(project, *lines).splitlines()
    assert sorted(found) == ["first.sagas True", "first.tasks", "second.tasks"]


def test_a_project_without_any_sagas_starts_as_before(project: Path) -> None:
    """Nothing is imported before a worker needs it."""
    (project / "first" / "sagas.py").unlink()
    assert run(project, "attach(app)", "print('attached')", IMPORT) == "attached\n"


def test_a_mistake_in_sagas_is_told_when_a_worker_starts(project: Path) -> None:
    """A module that is there and cannot be imported is not passed over."""
    (project / "first" / "sagas.py").write_text("import no_such_module\n")
    told = run(project, "attach(app)", IMPORT, fails=True)
    assert "No module named 'no_such_module'" in told


def test_an_app_without_django_imports_what_it_imported(project: Path) -> None:
    """``sagas`` may be the name of anything there."""
    lines = ("attach(app)", "app.autodiscover_tasks(['first'])", IMPORT)
    assert run(project, *lines, django=False) == "first.tasks\n"


def test_shared_tasks_of_every_thread_belong_to_the_projects_app(project: Path) -> None:
    """Celery makes the first app of a Django process the default one; it is not the package's."""
    threaded = "threading.Thread(target=lambda: print(current_app.main, shared.app.main)).start()"
    shared = "@shared_task\ndef shared(): pass"
    assert run(project, "attach(app)", shared, threaded) == "proj proj\n"


def test_without_django_a_start_on_commit_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error states what to do, instead of naming a missing attribute."""
    monkeypatch.setitem(sys.modules, "django.db", None)
    start = attach(Celery("plain", broker="redis://127.0.0.1:1/0"), NOWHERE).start_saga
    with pytest.raises(InvalidInput, match=r"delay_on_commit waits .* call start_saga\.delay once"):
        start.delay_on_commit("order", {})
    with pytest.raises(InvalidInput, match=r"call start_saga\.apply_async once"):
        start.apply_async_on_commit(("order", {}))


def test_a_start_on_commit_with_wrong_arguments_fails_inside_the_transaction() -> None:
    """The error rolls the row back; it does not come at the commit."""
    start = attach(Celery("plain", broker="redis://127.0.0.1:1/0"), NOWHERE).start_saga
    with pytest.raises(TypeError, match="the text of an idempotency_key"):
        start.delay_on_commit("order", {}, {"more": 1})
    with pytest.raises(TypeError, match="unexpected keyword"):
        start.apply_async_on_commit(("order",), {"inptu": {}})


class Row:
    """A model's instance, for one: no JSON."""


@pytest.mark.parametrize(
    ("given", "options", "error", "why"),
    [
        ((), {}, TypeError, "start_saga takes first the name of a workflow.* workflow is none"),
        (({"row": 1},), {}, TypeError, "start_saga takes first .* workflow is dict"),
        (("order", {"row": Row()}), {}, InvalidInput, "input: .*row.*Row"),
        (("order", [1]), {}, InvalidInput, "the input is list: expected a dict"),
        (("order", {}, ""), {}, InvalidInput, "idempotency_key is ''"),
        (("order", {}), {"task_id": ""}, InvalidInput, "id"),
        (("order", {}), {"headers": {"id": "x"}}, InvalidInput, "headers id belong to Celery"),
    ],
)
def test_a_start_on_commit_of_what_cannot_be_stored_fails_inside_the_transaction(
    given: tuple[Any, ...], options: dict[str, Any], error: type[Exception], why: str
) -> None:
    """A rollback still takes the row along; no server is asked."""
    start = attach(Celery("plain", broker="redis://127.0.0.1:1/0"), NOWHERE).start_saga
    with pytest.raises(error, match=why):
        start.apply_async_on_commit(given, **options)
    if not options:
        with pytest.raises(error, match=why):
            start.delay_on_commit(*given)
