"""How do subscribers get the events of sagas?  By Redis Streams."""
