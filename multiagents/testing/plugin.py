"""Which fixtures does pytest get when multiagents is installed?"""
