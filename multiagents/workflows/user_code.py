"""What do the user's modules and definition files register?

MULTIAGENTS_IMPORTS and MULTIAGENTS_WORKFLOWS name them.  A worker reads them when it starts, a
client only if it lacks a definition.
"""

from __future__ import annotations

from multiagents.core import user_modules
from multiagents.core.exceptions import InvalidWorkflow
from multiagents.core.settings import Settings
from multiagents.workflows.files import register_folder


def load(settings: Settings) -> None:
    """Import the modules and register the files.  Raises InvalidInput for an unreadable one."""
    register_files(settings)
    user_modules.load(settings.import_names)


def register_files(settings: Settings) -> None:
    """Register the workflows of definition files, like code.  Raises InvalidWorkflow."""
    if settings.workflows is None:
        return
    try:
        register_folder(settings.workflows)
    except InvalidWorkflow as error:
        raise InvalidWorkflow(f"MULTIAGENTS_WORKFLOWS: {error}", error.errors) from None
