"""Which laws must hold for each saga, whatever happens to it?"""
