"""What happens next?  Workflows, the rules of a saga, and the coordinator that applies them."""
