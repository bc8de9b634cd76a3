"""How do messages and outcomes travel in Celery?"""
