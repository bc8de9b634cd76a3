"""How fast is a saga, and what does it cost?  ``multiagents bench``.

Each file makes one kind of measurement; `catalog` lists them all.  Each uses an embedded server
with workers of its own.
"""
