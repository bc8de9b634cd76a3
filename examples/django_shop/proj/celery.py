"""The project's Celery app; the last three lines bring sagas to it."""

import os

from celery import Celery

from multiagents import attach

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")

app = Celery("proj")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

runtime = attach(app)  # workers import sagas.py of each Django app, too
start_saga = runtime.start_saga
sagas = runtime.sagas
