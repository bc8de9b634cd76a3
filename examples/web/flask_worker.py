"""What does ``celery -A examples.web.flask_worker worker`` run?"""

from __future__ import annotations

from examples.web.flask_app import create_app

flask_app = create_app()
app = flask_app.extensions["celery"]
