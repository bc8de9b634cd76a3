"""What is to be done?  Workflows: how they are written, read, checked and found by name."""
