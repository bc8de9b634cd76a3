"""Is anything lost when everything fails?  ``multiagents chaos``.

Real workers and a real server are killed, frozen and cut off while sagas of a small shop run.
`run` puts it together; `audit` compares what the engine says with what the shop's ledger shows.
"""
