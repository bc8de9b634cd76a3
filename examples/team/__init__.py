"""What does a team have before it knows sagas (`tasks`), and what does it add (`sagas`)?"""
