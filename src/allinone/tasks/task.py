"""A task: one prompt file, made runnable on one model. What it asks of the engine and how its answer is read.

The four kinds differ in two functions only, `build` (variables → engine request) and `read` (engine answer → Result);
each kind has a file of its own. Above: the runtime and the pipelines. Below: prompts (text) and the engine (ids).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from allinone.engine.requests import GenerateRequest, Generation, LabelScores, SamplingParams, ScoreRequest
from allinone.errors import ContextLengthExceeded, InvalidInput
from allinone.prompts.prompt_file import LabelSpec, PromptFile
from allinone.tasks import json, label
from allinone.tasks.encoder import PromptEncoder
from allinone.types import Caller, Message, Result, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One input of a task, checked and ready to be rendered.

    Attributes:
        variables: template variables; `text` is the user's input, already shortened where the file allows it.
        labels: the labels to choose from (label tasks), in the order asked for.
        truncated_tokens: how many tokens of `text` were dropped.
        label_temperature: what label log-probabilities are divided by before they become probabilities.
    """

    prompt: PromptFile
    variables: Mapping[str, Any]
    labels: tuple[LabelSpec, ...] = ()
    history: tuple[Message, ...] = ()
    truncated_tokens: int = 0
    deadline_s: float | None = None
    label_temperature: float = 1.0
    caller: Caller = field(default_factory=Caller)

    def messages(self) -> tuple[Message, ...]:
        """The prompt's turns with this call's variables in place."""
        labels = self.labels if self.labels and self.prompt.open_labels else None
        return self.prompt.render(self.variables, history=self.history, labels=labels)


def prepare_call(
    prompt: PromptFile,
    encoder: PromptEncoder,
    variables: Mapping[str, Any],
    *,
    labels: Sequence[str] | None = None,
    history: Sequence[Message] = (),
    deadline_s: float | None = None,
    on_long: str | None = None,
    label_temperature: float = 1.0,
    caller: Caller | None = None,
) -> Call:
    """Check one input against the limits of its task.

    Args:
        prompt: the task's file.
        encoder: tokenizer and template of the model, to count tokens.
        variables: template variables, with the user's input under `text`.
        labels: for label tasks, a subset (labels or their English names); any strings where the file has open labels.
        history: earlier turns, for chat tasks.
        deadline_s: seconds from now; the file's own limit where None.
        on_long: "error" or "truncate" instead of what the file says.
        label_temperature: the model's own for this task.
        caller: who asks; nobody in particular where None.

    Raises:
        InvalidInput: text that is empty or not a string, labels for a task that has none.
        ContextLengthExceeded: text longer than `max_input_tokens`; gives both numbers.
        VerbalizerError: unknown labels.
    """
    text = variables.get("text")
    if not isinstance(text, str):
        raise InvalidInput(f"Task {prompt.full_name!r} needs a text, got {type(text).__name__}.")
    if not text.strip():
        raise InvalidInput("The text is empty.", hint="give at least one visible character")
    if labels is not None and prompt.kind != "label":
        raise InvalidInput(f"Task {prompt.full_name!r} is of kind {prompt.kind!r} and has no labels.")
    text, dropped = _fit(prompt, encoder, text, on_long or prompt.limits.on_long)
    return Call(
        prompt=prompt,
        variables={**variables, "text": text},
        labels=prompt.find_labels(labels) if labels is not None else prompt.labels,
        history=tuple(history),
        truncated_tokens=dropped,
        deadline_s=deadline_s if deadline_s is not None else prompt.limits.deadline_s,
        label_temperature=label_temperature,
        caller=caller or Caller(),
    )


def _fit(prompt: PromptFile, encoder: PromptEncoder, text: str, on_long: str) -> tuple[str, int]:
    """Hold `text` to the task's `max_input_tokens`."""
    limit = prompt.limits.max_input_tokens
    if limit is None or len(text.encode("utf-8", errors="surrogatepass")) <= limit:  # a token is at least one byte
        return text, 0
    shortened, dropped = encoder.shorten(text, limit)
    if dropped and on_long != "truncate":
        raise ContextLengthExceeded(
            f"The text has {limit + dropped} tokens; task {prompt.full_name!r} takes at most {limit}.",
            hint="shorten it, or set `allinone.limits: {on_long: truncate}` in the prompt file",
        )
    return shortened, dropped


def sampling_params(prompt: PromptFile, encoder: PromptEncoder) -> SamplingParams:
    """The decoding settings of a prompt file, with the stop strings of a model that has no turn tokens."""
    config = prompt.config
    return SamplingParams(
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        min_p=config.min_p,
        repetition_penalty=config.repetition_penalty,
        seed=config.seed,
        stop=(*config.stop, *encoder.stop_strings),
        max_tokens=config.max_tokens,
        prompt_lookup_num_tokens=config.prompt_lookup_num_tokens,
    )


def build_score_request(call: Call, encoder: PromptEncoder) -> ScoreRequest:
    """The request of a label call."""
    prompt = encoder.encode(encoder.segments(call.messages()))
    are_own = call.labels is call.prompt.labels
    return ScoreRequest(
        prefix_ids=prompt.prefix_ids,
        input_ids=prompt.input_ids,
        label_ids=label.verbalize(call.labels, encoder, of_operator=are_own, path=str(call.prompt.path)),
        deadline_s=call.deadline_s,
        caller=call.caller,
    )


def build_generate_request(call: Call, encoder: PromptEncoder) -> GenerateRequest:
    """The request of a text, json or chat call."""
    prompt = encoder.encode(encoder.segments(call.messages()))
    sampling = sampling_params(call.prompt, encoder)
    if call.prompt.kind == "json":
        sampling = replace(sampling, constraint=json.constraint(call.prompt))
    return GenerateRequest(
        prefix_ids=prompt.prefix_ids,
        input_ids=prompt.input_ids,
        sampling=sampling,
        deadline_s=call.deadline_s,
        caller=call.caller,
    )


def read_answer(call: Call, answer: LabelScores | Generation, *, model: str) -> Result:
    """The engine's answer as the task's result.

    Raises:
        OutputParseError: a json task's output is not complete JSON.
    """
    usage = replace(answer.usage, truncated_tokens=call.truncated_tokens)
    result = _result(call, model, usage)
    if isinstance(answer, LabelScores):
        return replace(result, timings=answer.timings, **label.read(call.labels, answer, call.label_temperature))
    result = replace(result, text=answer.text.strip(), finish_reason=answer.finish_reason, timings=answer.timings)
    return replace(result, data=json.read(answer)) if call.prompt.kind == "json" else result


def _result(call: Call, model: str, usage: Usage) -> Result:
    return Result(
        task=call.prompt.full_name, version=call.prompt.version, model=model, kind=call.prompt.kind, usage=usage
    )
