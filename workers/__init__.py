"""Which workers can be deployed?  Those of the examples, one module for each kind of work."""
