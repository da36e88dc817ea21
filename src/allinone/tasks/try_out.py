"""Whether a prompt can run on this model at all, found out without running it.

A prompt file that is right by itself may have labels that the model's tokenizer cannot tell apart, a schema that no
output can be held to, or more text than the model's context. Above: the runtime. Below: `task` and the engine.
"""

from __future__ import annotations

from allinone.engine.engine import Engine
from allinone.prompts.prompt_file import PromptFile
from allinone.prompts.schema import placeholders
from allinone.tasks.encoder import PromptEncoder
from allinone.tasks.task import build_generate_request, build_score_request, prepare_call


def count_prefix_tokens(prompt: PromptFile, encoder: PromptEncoder, engine: Engine) -> int:
    """Tokens that all requests of the prompt share.

    Raises:
        VerbalizerError, ContextLengthExceeded, UsageError: this model cannot run it.
    """
    call = prepare_call(prompt, encoder, placeholders(prompt.inputs), on_long="truncate")
    request = build_score_request(call, encoder) if prompt.kind == "label" else build_generate_request(call, encoder)
    engine.check(request)
    return len(request.prefix_ids)
