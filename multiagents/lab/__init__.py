"""Does it hold, and how fast is it?  Chaos, bench and simulator; no room imports this one."""
