"""What does a saga do for me?  ``multiagents demo``."""
