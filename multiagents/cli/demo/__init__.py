"""What does a saga do for its user?  ``multiagents demo``."""
