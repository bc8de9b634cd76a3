"""Is everything as it should be?  ``multiagents doctor``."""
