"""How is work done?  Workers, their context, and how a function becomes an attempt of a step."""
