"""What are the terms?  States, entries, errors, settings and names, shared by all other rooms."""
