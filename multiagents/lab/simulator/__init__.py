"""Does the engine keep its laws in simulated systems with many faults?"""
