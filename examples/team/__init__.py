"""What does a team have before it uses sagas (`tasks`), and what does it add (`sagas`)?"""
