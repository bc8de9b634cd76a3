"""Orders, and the stock for them."""
