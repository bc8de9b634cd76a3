"""How does an order succeed, and how is it undone?  See `main`."""
