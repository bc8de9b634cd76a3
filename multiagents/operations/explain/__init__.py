"""Why is a saga where it is, and what would move it?"""
