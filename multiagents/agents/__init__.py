"""Who thinks?  Steps that a language model does, and the tools that it may call."""
