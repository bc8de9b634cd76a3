"""How does a language model do steps?  Its signature, reasoning and tools."""
