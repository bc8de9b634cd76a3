"""Which language model answers?

The first of these: the worker's ``model=``, ``MULTIAGENTS_LM``, the program's own
``dspy.configure(lm=...)``.  DSPy reads keys from the environment.

- A model object is never shared across a fork: children would receive each other's answers.
  Models are built on first use, and a child drops those of its parent.
- DSPy neither retries nor caches: the engine retries, and a cached answer is not an attempt.
- dspy is imported on first use (1.4 s), and never configured: `dspy.context` is per call.
"""

from __future__ import annotations

import importlib
import os
import re
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from multiagents.core.exceptions import NonRetryableError
from multiagents.core.settings import get_settings
from multiagents.worker_sdk.validation import redact

DEFAULT_TIMEOUT_S = 120.0
"""The timeout of one request to a model.  A long answer takes a minute; DSPy's default of 600 s
would hide a dead provider."""
EXAMPLE = "gemini/gemini-2.5-flash"
_ENGINE_OWNS = {"cache": False, "num_retries": 0}
_SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS)$")
_SECRET_CHARS = 6
"""Shorter values of a variable with such a name are no secrets, and occur in many words."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

_models: dict[tuple[Any, ...], tuple[Any, Any]] = {}
"""By their settings; the second item keeps a configured original alive, whose id is in the key."""
_lock = threading.Lock()


def load_dspy() -> Any:
    """The dspy module.  Its price list comes from the package, since the first call of a process
    would otherwise wait for a download."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    return importlib.import_module("dspy")


def language_model(
    model: str | None, settings: Mapping[str, Any], *, timeout_s: float = DEFAULT_TIMEOUT_S
) -> Any:
    """This process's dspy.LM of that name and settings; ``timeout_s`` is for one request.

    Raises NonRetryableError(clean=True) if no model is named or DSPy refuses it.
    """
    environment = get_settings()
    name = model or environment.lm
    if name is None:
        return _configured(settings, timeout_s)
    wanted = {**settings, **_ENGINE_OWNS}
    if isinstance(settings.get("engine", "auto"), str):  # an engine object has its own timeouts
        wanted.setdefault("timeout", timeout_s)
    if model is None and environment.lm_api_base:  # a worker's own model sends no key there
        wanted.setdefault("api_base", environment.lm_api_base)
    if _needs_no_key(name, wanted):
        wanted["api_key"] = "none"
    key = (name, *_as_key(wanted))
    return _once(key, lambda: _built(name, wanted), keep=None)


def without_secrets(text: str) -> str:
    """The text without the values of keys in the environment and without text like a secret."""
    for name, value in os.environ.items():
        if len(value) >= _SECRET_CHARS and _SECRET_NAME.search(name.upper()):
            text = text.replace(value, "***")
    return redact(text)


def _built(name: str, wanted: Mapping[str, Any]) -> Any:
    try:
        return load_dspy().LM(name, **wanted)
    except (ValueError, TypeError) as error:
        raise NonRetryableError(f"the language model {name!r} is refused: {error}", True) from error


def _configured(settings: Mapping[str, Any], timeout_s: float) -> Any:
    """A copy of the model of `dspy.configure`, with the engine's settings and its connection."""
    dspy = load_dspy()
    original = dspy.settings.lm
    if original is None:
        raise NonRetryableError(
            "no language model is set: give the worker one with @dspy_worker(..., "
            f'model="{EXAMPLE}") or every worker with MULTIAGENTS_LM={EXAMPLE}, and put its key'
            " (here GEMINI_API_KEY) into the environment",
            clean=True,
        )
    if type(original) is not dspy.LM:  # a test double or the user's own: it has its own rules
        return original
    wanted = {**settings, **_ENGINE_OWNS}
    if isinstance(original._engine_spec, str) and "timeout" not in original.kwargs:
        wanted.setdefault("timeout", timeout_s)
    key = ("configured", id(original), *_as_key(wanted))
    return _once(key, lambda: original.copy(**wanted), keep=original)


def _as_key(wanted: Mapping[str, Any]) -> list[tuple[str, str]]:
    return sorted((option, repr(value)) for option, value in wanted.items())


def _once(key: tuple[Any, ...], build: Any, *, keep: Any) -> Any:
    with _lock:
        if key not in _models:
            _models[key] = (build(), keep)
        return _models[key][0]


def _needs_no_key(name: str, wanted: Mapping[str, Any]) -> bool:
    """Whether the model's server is on this machine, and so takes any key; DSPy requires one."""
    provider = name.partition("/")[0].upper().replace("-", "_")
    if "api_key" in wanted or f"{provider}_API_KEY" in os.environ:
        return False
    return urlsplit(str(wanted.get("api_base") or "")).hostname in _LOOPBACK


def _forget() -> None:
    global _lock
    _lock = threading.Lock()  # the parent's may be held by a thread that does not exist here
    _models.clear()


os.register_at_fork(after_in_child=_forget)
