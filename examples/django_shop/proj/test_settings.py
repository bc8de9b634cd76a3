"""Settings for tests: tasks and sagas run in the test's own process, without a server."""

from proj.settings import *  # noqa: F403

CELERY_TASK_ALWAYS_EAGER = True
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
