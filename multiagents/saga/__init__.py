"""What happens next?  The rules of a saga: pure functions over a draft, driven by tables."""
