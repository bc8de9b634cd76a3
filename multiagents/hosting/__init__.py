"""How does a Celery worker host the engine?  The only wiring."""
