"""Do sagas survive failures, and how fast are they?  No other room imports this one."""
