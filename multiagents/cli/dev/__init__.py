"""How does a newcomer begin?  ``multiagents dev``."""
