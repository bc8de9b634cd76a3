"""How do users test?  Fixtures for eager sagas, a fake clock, and a stub language model."""
