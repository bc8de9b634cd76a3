"""Where do programs of earlier versions import the readers of JSON and YAML workflows from?"""

from multiagents.workflows.files import load_definition, load_file

__all__ = ["load_definition", "load_file"]
