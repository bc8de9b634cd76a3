"""Do the servers, workers and sagas work as they should?  ``multiagents doctor``."""
