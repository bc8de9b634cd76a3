"""What does it look like in use?  Each module with an async ``main()`` is one example."""
