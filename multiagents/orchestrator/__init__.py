"""How does an asyncio program drive sagas?"""
