"""Json tasks: the output is held to the file's schema while it is decoded, then parsed."""

from __future__ import annotations

import json
from typing import Any

from allinone.engine.requests import Constraint, Generation
from allinone.errors import OutputParseError, PromptError
from allinone.prompts.prompt_file import PromptFile

_CUT_SHORT = {
    "length": "it ended at max_tokens",
    "deadline": "the deadline passed first",
    "cancelled": "it was cancelled",
}


def constraint(prompt: PromptFile) -> Constraint:
    """The schema as a decoding constraint; properties come in the order of the file, so reasoning may come first.

    Raises:
        PromptError: the file declares no schema.
    """
    if prompt.output_schema is None:
        raise PromptError("A json task needs an output schema.", path=str(prompt.path), key="output.schema")
    return Constraint(kind="json_schema", value=prompt.output_schema)


def read(answer: Generation) -> Any:
    """The parsed value.

    Raises:
        OutputParseError: the output ended before the JSON was complete (its `raw_text` has what there is).
    """
    try:
        return json.loads(answer.text)
    except ValueError as error:
        reason = _CUT_SHORT.get(answer.finish_reason, str(error))
        raise OutputParseError(
            f"The output is not complete JSON: {reason}.",
            raw_text=answer.text,
            hint="raise `config: {max_tokens: …}` in the prompt file" if answer.finish_reason == "length" else None,
        ) from error
