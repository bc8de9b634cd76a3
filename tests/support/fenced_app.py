"""Which tasks can a team's app make, in every way that Celery has? Each counts its runs."""

from __future__ import annotations

import os
from typing import Any

import celery
from celery import Celery, shared_task

from multiagents import WorkflowBuilder, attach, task
from multiagents.storage.keys import SagaKeys

_URL = os.environ["MULTIAGENTS_REDIS_URL"]


class AppTask(celery.Task):
    abstract = True


class OwnBase(celery.Task):
    """A base class as in Celery's manual: it knows no app."""

    abstract = True


class Silent(celery.Task):
    """Does not call the ``before_start`` that it inherits."""

    abstract = True

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        count(f"before:{self.name}")


class Polite(celery.Task):
    """Calls the inherited ``before_start``."""

    abstract = True

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        count(f"before:{self.name}")
        super().before_start(task_id, args, kwargs)


class Static(celery.Task):
    """Its ``before_start`` takes no self."""

    abstract = True

    @staticmethod
    def before_start(task_id: str, args: Any, kwargs: Any) -> None:
        count("before:static")


app = Celery("fenced", broker=_URL, backend=_URL, task_cls=AppTask)
app.conf.update(task_default_queue="fenced", task_acks_late=True)


def count(what: str) -> int:
    return int(app.backend.client.incr(f"runs:{what}"))


class Classic(OwnBase):
    name = "classic"

    def run(self) -> int:
        return count("classic")


class Heir(Classic, Polite):
    """A task class stands between it and its ``before_start``."""

    name = "heir"

    def run(self) -> int:
        return count("heir")


def define(name: str, **options: Any) -> None:
    @app.task(name=name, **options)
    def run() -> int:
        return count(name)


define("plain")
define("based", base=OwnBase)
define("silent", base=Silent)
define("polite", base=Polite)
define("static", base=Static)
app.register_task(Classic())
app.register_task(Heir())


@shared_task(name="shared", base=OwnBase)
def shared() -> int:
    return count("shared")


runtime = attach(app)
attach(app)
attach(Celery("other", broker=_URL, task_cls=Polite))
define("later", base=OwnBase)
app.Task = OwnBase
define("replaced")

MADE_BEFORE = ("plain", "based", "silent", "polite", "static", "classic", "heir", "shared")
TASKS = (*MADE_BEFORE, "later", "replaced")


@app.task(name="outlived", base=OwnBase)
def outlived(saga_id: str) -> int:
    """During its run another claim under its id takes its place (E5)."""
    app.backend.client.hset(
        SagaKeys(saga_id).work, "c:run:outlived", app.backend.client.get("claim")
    )
    return 1


for _name in TASKS:
    WorkflowBuilder(_name).add_step(_name, task(_name, args=[])).build().register()
(
    WorkflowBuilder("outlived")
    .add_step("outlived", task(outlived, args=["input.id"]))
    .build()
    .register()
)
