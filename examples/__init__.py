"""How is the package used?  Each module with an async ``main()`` is one example."""
