"""From one of OpenAI's requests to requests of the runtime: one for each choice.

Owns what a client's fields mean: for the bare model messages and decoding settings, for `allinone/TASK` the last user
message. Every content of a client is a value. Above: `openai_api.py`. Below: the runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from allinone.engine.requests import SamplingParams
from allinone.errors import InvalidInput
from allinone.prompts.prompt_file import PromptFile
from allinone.runtime import AllInOne
from allinone.server.context import ServerContext
from allinone.server.fields import MAX_DEADLINE_S
from allinone.server.keys import Access
from allinone.server.openai_choices import Pieces, Started, read_label, read_stream, start_all
from allinone.server.openai_requests import ChatRequest, CompletionRequest, JsonObjectFormat
from allinone.tasks.raw import make_messages
from allinone.tasks.run import Pending

DEFAULT_CHAT_TOKENS = 512
"""Room for a whole answer is reserved before it begins: without a limit, a request would take all there is."""
DEFAULT_COMPLETION_TOKENS = 16
DEFAULTS_TASK = "chat"
"""Whose temperature, top_p, top_k, min_p and repetition_penalty hold where a client gives none."""


async def begin_chat(
    body: ChatRequest, prompt: PromptFile | None, context: ServerContext, access: Access
) -> list[Pieces]:
    """Submit the choices of a chat completion; `prompt` is the task's, where the model is one."""
    starts = [
        _bare_start(body, choice, context.ai, access)
        if prompt is None
        else _task_start(body, prompt, choice, context.ai, access)
        for choice in range(body.num_choices)
    ]
    started = await start_all(
        starts,
        num_chars=sum(len(message.text) for message in body.messages) * len(starts),
        is_heavy=body.constraint is not None or (prompt is not None and prompt.kind == "json"),
    )
    return [
        read_label(one, context, access, num_logprobs=body.num_logprobs)
        if isinstance(one, Pending)
        else read_stream(one, context, access, has_logprobs=body.num_logprobs is not None)
        for one in started
    ]


async def begin_completion(body: CompletionRequest, context: ServerContext, access: Access) -> list[Pieces]:
    """Submit the choices of a completion, prompt by prompt."""
    starts: list[Callable[[], Started]] = []
    for prompt in body.prompts:
        for choice in range(body.num_choices):
            defaults = {"temperature": 1.0, "max_tokens": DEFAULT_COMPLETION_TOKENS}
            fields: dict[str, Any] = {**defaults, **body.sampling(choice)}
            starts.append(
                partial(
                    context.ai.complete,
                    prompt,
                    SamplingParams(**fields),
                    client=access.owner,
                    deadline_s=MAX_DEADLINE_S,
                )
            )
    started = await start_all(starts, num_chars=sum(map(len, body.prompts)) * body.num_choices, is_heavy=False)
    return [
        read_stream(one, context, access, has_logprobs=body.logprobs is not None)
        for one in started
        if not isinstance(one, Pending)
    ]


def _bare_start(body: ChatRequest, choice: int, ai: AllInOne, access: Access) -> Callable[[], Started]:
    """Messages as they are, with the client's settings."""
    turns = [{"role": message.model_role, "content": message.text} for message in body.messages]
    sampling = SamplingParams(**{**_defaults(ai), **body.sampling(choice)}, constraint=body.constraint)
    return partial(ai.complete, turns, sampling, client=access.owner, deadline_s=MAX_DEADLINE_S)


def _defaults(ai: AllInOne) -> Mapping[str, Any]:
    config = ai.tasks.get(DEFAULTS_TASK).config
    return {
        "temperature": config.temperature,
        "top_p": config.top_p,
        "top_k": config.top_k,
        "min_p": config.min_p,
        "repetition_penalty": config.repetition_penalty,
        "max_tokens": DEFAULT_CHAT_TOKENS,
    }


def _task_start(
    body: ChatRequest, prompt: PromptFile, choice: int, ai: AllInOne, access: Access
) -> Callable[[], Started]:
    """The task's own prompt around the last user message; a label is read, everything else is written.

    Raises:
        InvalidInput: messages or a format that the task has no place for.
    """
    roles = [message.model_role for message in body.messages]
    if "system" in roles:
        raise InvalidInput(
            f"Message {roles.index('system')}: {body.model!r} has instructions of its own.",
            hint="send the text as a user message, or ask the model 'allinone'",
        )
    if "user" not in roles:
        raise InvalidInput(f"{body.model!r} works on the last user message, and there is none.")
    has_own_json = prompt.kind == "json" and isinstance(body.response_format, JsonObjectFormat)
    if body.constraint is not None and not has_own_json:
        raise InvalidInput(f"{body.model!r} has an output format of its own.", hint="leave response_format out")
    last = len(roles) - 1 - roles[::-1].index("user")
    text = body.messages[last].text
    deadline_s = MAX_DEADLINE_S if prompt.limits.deadline_s is None else None
    if prompt.kind == "label":
        return partial(ai.start, prompt.full_name, text, client=access.owner, deadline_s=deadline_s)
    earlier = [{"role": message.model_role, "content": message.text} for message in body.messages[:last]]
    return partial(
        ai.stream,
        prompt.full_name,
        text,
        history=make_messages(earlier) if prompt.kind == "chat" else (),
        client=access.owner,
        deadline_s=deadline_s,
        sampling=body.sampling(choice),
    )
