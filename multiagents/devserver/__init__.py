"""Where does a Redis come from when none is running?"""
