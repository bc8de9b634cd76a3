"""What is to be done?  Workflows: their builder, files, checks, conditions and registry."""
