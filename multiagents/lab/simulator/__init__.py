"""Does the engine keep its laws?  Simulated systems, in which everything fails."""
