"""How fast is a saga, and what does it cost?  ``multiagents bench``.

Each file measures one kind of thing; `catalog` lists what can be measured.
Everything is measured on an embedded server with workers of its own.
"""
