"""How does a saga move?  Flows that append, decide, commit, publish and continue; no Celery."""
