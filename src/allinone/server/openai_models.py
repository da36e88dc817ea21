"""Names of models as OpenAI's clients know them: the loaded model, and every task as `allinone/TASK`.

Knows the runtime's names, no HTTP. Above: `openai_api.py`.
"""

from __future__ import annotations

import hashlib
from typing import Any

from allinone import __version__
from allinone.errors import UnknownModel, UnknownTask, did_you_mean
from allinone.prompts.prompt_file import PromptFile
from allinone.runtime import AllInOne
from allinone.server.context import BARE_MODEL
from allinone.server.keys import Access

PRODUCT = "allinone"
_TASK_PREFIX = f"{PRODUCT}/"


def find_prompt(ai: AllInOne, model: str, access: Access) -> PromptFile | None:
    """The task that a model's name stands for; None for the loaded model itself.

    Raises:
        UnknownModel: it stands for nothing; names what this key may use.
    """
    if model in _bare_names(ai):
        return None
    ai.tasks.refresh()
    if model.startswith(_TASK_PREFIX):
        try:
            return ai.tasks.get(model.removeprefix(_TASK_PREFIX))
        except UnknownTask:
            pass
    raise UnknownModel(f"Unknown model {model!r}. {did_you_mean(model, _names(ai, access))}")


def allowed_name(prompt: PromptFile | None) -> str:
    """What a key has to be allowed for a model."""
    return BARE_MODEL if prompt is None else prompt.full_name


def list_models(ai: AllInOne, access: Access) -> dict[str, Any]:
    """`GET /v1/models`: what this key may use."""
    ai.tasks.refresh()
    return {"object": "list", "data": [describe_model(ai, name) for name in _names(ai, access)]}


def describe_model(ai: AllInOne, model: str) -> dict[str, Any]:
    """One model. `created` is when its files were written, 0 where it has none."""
    path = ai.model.path
    created = 0 if path is None or not path.exists() else int(path.stat().st_mtime)
    return {"id": model, "object": "model", "created": created, "owned_by": PRODUCT}


def fingerprint(ai: AllInOne) -> str:
    """Changes when the same request may be answered in another way: another model, backend or version."""
    info = ai.model.backend.info
    parts = (ai.model.full_name, info.name, str(info.num_threads), __version__)
    return f"fp_{hashlib.sha256('|'.join(parts).encode('utf-8')).hexdigest()[:12]}"


def _bare_names(ai: AllInOne) -> tuple[str, ...]:
    return tuple(dict.fromkeys((PRODUCT, ai.model.name, ai.model.full_name)))


def _names(ai: AllInOne, access: Access) -> list[str]:
    """The names that a key may use."""
    bare = _bare_names(ai) if access.allows(BARE_MODEL) else ()
    return [*bare, *(f"{_TASK_PREFIX}{name}" for name in ai.tasks.names() if access.allows(name))]
