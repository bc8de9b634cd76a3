"""Where do programs of earlier versions import from what reads a workflow from JSON or YAML?"""

from multiagents.workflows.files import load_definition, load_file

__all__ = ["load_definition", "load_file"]
