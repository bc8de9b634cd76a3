"""How does a Flask application start sagas on its own Celery app and report them?

    celery -A examples.web.flask_worker worker
    flask --app examples.web.flask_app run

The factory is Flask's own pattern for Celery, and `attach`.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, Task, shared_task
from flask import Blueprint, Flask, current_app, request, url_for

from examples.web import trips
from multiagents import (
    IdempotencyConflict,
    InvalidInput,
    NoServer,
    UnknownSaga,
    WorkflowBuilder,
    attach,
    task,
)

REDIS = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")

pages = Blueprint("trips", __name__)


def create_app(**config: Any) -> Flask:
    """The application; ``config`` over its settings."""
    app = Flask(__name__)
    celery = {
        "broker_url": REDIS,  # the server of the sagas, too
        "result_backend": REDIS,
        "task_ignore_result": True,
        "broker_transport": "multiagents.transport.kombu_redis:SteadyTransport",
    }
    app.config.from_mapping({"SENDER": "trips@example.com", "CELERY": celery, **config})
    app.extensions["celery"] = make_celery(app)
    app.extensions["sagas"] = attach(app.extensions["celery"])
    app.register_blueprint(pages)
    return app


def make_celery(app: Flask) -> Celery:
    """A Celery app whose tasks, and steps of sagas, have the application's context."""

    class FlaskTask(Task):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            with app.app_context():
                return self.run(*args, **kwargs)

    celery = Celery(app.name, task_cls=FlaskTask)
    celery.config_from_object(app.config["CELERY"])
    celery.set_default()
    return celery


@shared_task(name="web.send_mail")
def send_mail(text: str) -> dict[str, str]:
    """An existing task; it needs the application's settings."""
    return {"sender": current_app.config["SENDER"], "text": text}


(
    WorkflowBuilder("web_told_trip")
    .add_step("flight", trips.book_flight, compensation=trips.cancel_flight)
    .add_step("hotel", trips.book_hotel)
    .add_step("mail", task(send_mail, args=["steps.hotel.result.hotel"]))
    .build()
    .register()
)


@pages.post("/trips")
def book() -> Any:
    """Start a saga and answer at once."""
    start_saga = current_app.extensions["sagas"].start_saga
    given, key = request.get_json(), request.headers.get("Idempotency-Key")
    trip_id = start_saga.delay("web_told_trip", {"city": given["city"]}, key).saga_id
    return {"id": trip_id}, 202, {"Location": url_for("trips.show", trip_id=trip_id)}


@pages.get("/trips/<trip_id>")
def show(trip_id: str) -> Any:
    """The progress and the outcome of a trip."""
    saga = current_app.extensions["sagas"].sagas.get(trip_id)
    return {name: saga[name] for name in ("state", "current_step", "result", "error")}


@pages.errorhandler(InvalidInput)
def refuse(error: InvalidInput) -> Any:
    """Errors that the caller must fix; the subclass gives the kind."""
    status = 400
    if isinstance(error, UnknownSaga):
        status = 404
    elif isinstance(error, IdempotencyConflict):  # the same key with another body
        status = 422
    return {"detail": str(error)}, status


@pages.errorhandler(NoServer)
def put_off(error: NoServer) -> Any:
    """Redis is away: no saga was started, or the same key will find it."""
    return {"detail": "try again"}, 503, {"Retry-After": "5"}
