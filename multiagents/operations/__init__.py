"""What can be asked of a saga?  Each operation, and the shapes of its answers."""
