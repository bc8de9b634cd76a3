"""How do web applications start sagas?  One with FastAPI, one with Flask, over the same steps."""
