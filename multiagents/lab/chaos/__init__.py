"""Is anything lost when processes and connections fail?  ``multiagents chaos``.

While sagas of a small shop run, chaos kills and freezes real workers, kills a real server, and cuts
connections.  `run` is the whole run; `audit` compares the engine's records with the shop's ledger.
"""
