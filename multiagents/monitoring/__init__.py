"""How is it going?  Logs, counts and health of events and workers."""
