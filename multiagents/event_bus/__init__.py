"""Who is told?  Events of a saga on Redis Streams, for whoever subscribes."""
