"""The bundled model's recipe reads the prompt files on its own; both readings must be the same.

Otherwise the model would be trained on other texts than it is asked.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from allinone.prompts.library import BUILTIN_DIRECTORY, PromptLibrary

from .test_render import HISTORY

RECIPE = Path(__file__).parents[2] / "training" / "prompts.py"
LIBRARY = PromptLibrary.load()


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    """The recipe's reader, loaded by path: `training` is no part of the package."""
    spec = importlib.util.spec_from_file_location("training_prompts", RECIPE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", LIBRARY.names())
def test_recipe_renders_built_in_prompts_as_the_product_does(name: str, recipe: ModuleType):
    """Same roles, same texts, same border between operator and user, with and without optional variables."""
    prompt = LIBRARY.get(name)
    theirs = recipe.load_prompts(BUILTIN_DIRECTORY)[name]
    history = HISTORY if prompt.takes_history else ()
    their_history = [recipe.Message(m.role, tuple(recipe.Part(s.text, s.trusted) for s in m.content)) for m in history]
    optional = [field.name for field in prompt.inputs.values() if field.is_optional]
    for left_out in [(), *((field,) for field in optional)]:
        variables = {field: " 值 \n" for field in prompt.inputs if field not in left_out}
        messages = recipe.render_messages(theirs.body, variables, theirs.labels, their_history)
        expected = [(m.role, [(p.text, p.control) for p in m.parts]) for m in messages]
        rendered = prompt.render(variables, history=history)
        assert [(m.role, [(s.text, s.trusted) for s in m.content]) for m in rendered] == expected
