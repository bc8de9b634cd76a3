"""Settings of the shop."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = "only for this example"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["orders", "payments"]
ROOT_URLCONF = "proj.urls"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SHOP_DATABASE", BASE_DIR / "db.sqlite3"),
    }
}
USE_TZ = True

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
CELERY_BROKER_URL = REDIS_URL  # the server of the sagas, too
CELERY_RESULT_BACKEND = REDIS_URL
# Without this, a worker of Celery 5.7 that holds messages ends when its Redis restarts.
CELERY_BROKER_TRANSPORT = "multiagents.transport.kombu_redis:SteadyTransport"
