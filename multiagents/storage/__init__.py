"""What is in Redis?  Every key, every script, and the two edges that run them."""
