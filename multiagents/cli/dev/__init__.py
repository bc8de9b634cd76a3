"""How does `multiagents dev` run sagas on a developer's machine?"""
