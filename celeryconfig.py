"""Which of Celery's own settings does this installation change?

None: everything here is optional, the defaults live in the package, and MULTIAGENTS_REDIS_URL
alone names broker, results and state.  Uncomment what you want to be different; the names are
Celery's.
"""

# import os

# Broker and results on the server of the sagas (this is the default) or on others:
# broker_url = os.environ["MULTIAGENTS_REDIS_URL"]
# result_backend = os.environ["MULTIAGENTS_REDIS_URL"]

# Modules with workers and workflows, beside those of MULTIAGENTS_IMPORTS:
# imports = ("shop.workers",)

# Child processes of one worker; --concurrency on its command line comes first:
# worker_concurrency = 8
