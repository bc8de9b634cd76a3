"""Which of Celery's own settings does this installation change?

None: every line here is optional.  The package has the defaults, and MULTIAGENTS_REDIS_URL names
the server for broker, results and sagas.  Uncomment the settings to change; the names are Celery's.
"""

# import os

# Broker and results on the server of the sagas (this is the default) or on others:
# broker_url = os.environ["MULTIAGENTS_REDIS_URL"]
# result_backend = os.environ["MULTIAGENTS_REDIS_URL"]

# Modules with workers and workflows, in addition to MULTIAGENTS_IMPORTS:
# imports = ("shop.workers",)

# Child processes of one worker; --concurrency on its command line takes precedence:
# worker_concurrency = 8
