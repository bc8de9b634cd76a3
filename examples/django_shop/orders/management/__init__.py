"""The shop's additions to ``manage.py``."""
