"""Which operations on sagas exist?  Each of them, and the shapes of their results."""
