"""What are the words?  States, entries, errors, names: everything the other rooms speak with."""
