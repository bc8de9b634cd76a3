"""Orders, and what is in stock for them."""
