"""`AllInOne`: the façade that the command line, the server and library users all call, and the composition root.

It decides nothing about prompts, ids or numbers; it connects a loaded model, an engine, a task library and a result
cache, and turns task names and texts into results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, cast, overload

from allinone.backends.step_size import StepSizeFile
from allinone.config import Settings
from allinone.engine.budget import SIZES, BatchBudget
from allinone.engine.engine import Engine, EngineStats
from allinone.engine.result_cache import ResultCache
from allinone.errors import AllInOneError, InvalidInput, UsageError
from allinone.loading import LoadedModel, ProgressCallback, load_model
from allinone.pipelines.conversation import Conversation
from allinone.pipelines.reply import Reply
from allinone.prompts.library import LibraryEvent, PromptLibrary
from allinone.prompts.prompt_file import PromptFile
from allinone.tasks.encoder import PromptEncoder
from allinone.tasks.raw import RawRequests, stream_sampled
from allinone.tasks.run import Pending, TaskStream, run_many, start, stream
from allinone.tasks.task import Call, prepare_call
from allinone.tasks.try_out import count_prefix_tokens
from allinone.types import Caller, Message, Priority, Result

MIN_CACHED_TOKENS = 4_096
"""Room for the longest built-in task, however small the memory budget."""

DEFAULT_KV_BYTES = 1_536 * 2**20

Item = str | Mapping[str, Any]


class AllInOne(RawRequests):
    """One loaded model, many tasks. Thread-safe; a context manager.

    Use `AllInOne.load`; the constructor takes the parts ready made (tests, unusual compositions).

    Args:
        model: loaded, with its tokenizer and template.
        library: the tasks.
        language: "en" prefers the English variant of the chat and its mood.
        max_kv_bytes: memory for keys and values: prefixes, conversations and running requests together.
        max_queue: most requests waiting; more are refused with QueueFull.
        max_cached_results: most answers in the result cache; 0 keeps none.
    """

    def __init__(
        self,
        model: LoadedModel,
        library: PromptLibrary,
        *,
        language: str = "zh",
        max_kv_bytes: int = DEFAULT_KV_BYTES,
        max_queue: int = 1_024,
        max_cached_results: int = 4_096,
    ) -> None:
        self.model = model
        self.tasks = library
        self.language = language
        info = model.backend.info
        max_cached_tokens = max(MIN_CACHED_TOKENS, max_kv_bytes // info.kv_bytes_per_token)
        self.max_kv_tokens = max_cached_tokens
        self.max_context_tokens = min(info.max_context_tokens, max_cached_tokens)
        measured = StepSizeFile(info)
        size = measured.recall()
        budget = BatchBudget(size if size in SIZES else None, on_chosen=measured.remember)
        self.engine = Engine(
            model.backend,
            model.tokenizer,
            max_cached_tokens=max_cached_tokens,
            max_batch_tokens=budget,
            max_queue=max_queue,
        )
        self.encoder = PromptEncoder(model.tokenizer, model.template)
        self.results: ResultCache[Result] = ResultCache(max_entries=max_cached_results)

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        backend: Literal["onnx", "transformers", "llamacpp", "fake"] | None = None,
        tasks: str | Path | Sequence[str | Path] | None = None,
        *,
        threads: int | None = None,
        quantization: Literal["int8", "float32"] = "int8",
        cache: bool = True,
        language: Literal["zh", "en"] = "zh",
        dtype: Literal["float32", "bfloat16"] = "float32",
        compile: bool = False,
        max_kv_bytes: int = DEFAULT_KV_BYTES,
        on_progress: ProgressCallback | None = None,
        on_library_event: Callable[[LibraryEvent], None] | None = None,
    ) -> AllInOne:
        """Load a model and the task library.

        Args:
            model: "bundled" (default), the path of a GGUF file, safetensors folder or compiled folder, or a hub id
                that was pulled before.
            backend: "onnx", "llamacpp" (extra), "transformers" (extra) or "fake" (deterministic, for tests); where
                None, what `allinone models tune` found best for this model on this machine, else "onnx".
            tasks: folder or folders with `.prompt` files, added to the built-in tasks; later ones win by name;
                the environment's ALLINONE_TASKS where None.
            threads: threads of the backend; the physical cores where None.
            quantization: of the onnx backend.
            cache: keep results of label and greedy tasks (LRU).
            language: "en" prefers the English variant of the chat and its mood (`chat.en`, `sentiment.en`).
            dtype: of the transformers backend.
            compile: `torch.compile`, of the transformers backend.
            max_kv_bytes: memory for keys and values; room for 4,096 tokens at least.
            on_progress: called with (step, done, total) while a model is imported the first time.
            on_library_event: called when a task file is reloaded, broken or removed.

        Raises:
            UnknownModel, WeightsNotFound, WeightsMismatch, ConfigError, StoreError.
        """
        if tasks is None:
            tasks = Settings.from_env().task_dirs
        folders = [Path(folder) for folder in ([tasks] if isinstance(tasks, (str, Path)) else tasks)]
        library = PromptLibrary.load(folders, on_event=on_library_event)
        loaded = load_model(
            model,
            backend=backend,
            num_threads=threads,
            quantization=quantization,
            dtype=dtype,
            compile=compile,
            on_progress=on_progress,
        )
        max_cached_results = 4_096 if cache else 0
        return cls(loaded, library, language=language, max_kv_bytes=max_kv_bytes, max_cached_results=max_cached_results)

    def run(
        self,
        task: str,
        text: str,
        *,
        labels: Sequence[str] | None = None,
        history: Sequence[Message] = (),
        deadline_s: float | None = None,
        client: str = "",
        priority: Priority = "interactive",
        **variables: Any,
    ) -> Result:
        """Run one task on one text and wait for the whole answer.

        Args:
            task: name of a task, with its variant where it has one (`sentiment`, `sentiment.en`).
            text: the user's text.
            labels: for label tasks, a subset of the labels or their English names; probabilities are renormalised.
            history: earlier turns, for chat tasks.
            deadline_s: seconds from now, waiting included.
            client: who asks: clients that wait at the same time get equal shares.
            priority: "batch" for bulk work, which lets people's requests go first.
            **variables: further variables that the task's file declares.

        Raises:
            UnknownTask, InvalidInput, ContextLengthExceeded, PromptError, DeadlineExceeded, OutputParseError,
            QueueFull.
        """
        pending = self.start(
            task,
            text,
            labels=labels,
            history=history,
            deadline_s=deadline_s,
            client=client,
            priority=priority,
            **variables,
        )
        return pending.result()

    def start(
        self,
        task: str | PromptFile,
        text: str,
        *,
        labels: Sequence[str] | None = None,
        history: Sequence[Message] = (),
        deadline_s: float | None = None,
        client: str = "",
        priority: Priority = "interactive",
        **variables: Any,
    ) -> Pending:
        """Begin what `run` does, without waiting: the answer, or its error, comes with `Pending.result`.

        Answers that were kept are given to the same `client` only. A task may also be a prompt that the library does
        not serve: a draft.
        """
        caller = Caller(client=client, priority=priority)
        return self._start(self._prepare(task, {**variables, "text": text}, labels, history, deadline_s, caller))

    @overload
    def map(
        self,
        task: str,
        texts: Iterable[Item],
        *,
        labels: Sequence[str] | None = None,
        deadline_s: float | None = None,
        client: str = "",
        priority: Priority = "batch",
        window: int = 64,
        on_error: Literal["raise"] = "raise",
    ) -> Iterator[Result]: ...
    @overload
    def map(
        self,
        task: str,
        texts: Iterable[Item],
        *,
        labels: Sequence[str] | None = None,
        deadline_s: float | None = None,
        client: str = "",
        priority: Priority = "batch",
        window: int = 64,
        on_error: Literal["return"],
    ) -> Iterator[Result | AllInOneError]: ...
    def map(
        self,
        task: str,
        texts: Iterable[Item],
        *,
        labels: Sequence[str] | None = None,
        deadline_s: float | None = None,
        client: str = "",
        priority: Priority = "batch",
        window: int = 64,
        on_error: Literal["raise", "return"] = "raise",
    ) -> Iterator[Result | AllInOneError]:
        """Run one task on many inputs: results in order, computed in batches, read lazily.

        Args:
            task: name of a task.
            texts: strings, or mappings with `text` and further variables.
            labels: as for `run`.
            deadline_s: for each input, from its submission.
            client: as for `run`.
            priority: as for `run`; bulk work by default.
            window: most inputs in flight.
            on_error: "return" yields the error of a bad input in its place and goes on.
        """
        if window < 1:
            raise UsageError(f"window must be at least 1, got {window}.")
        caller = Caller(client=client, priority=priority)
        prompt = self._prompt(task)

        def begin(item: Item) -> Pending:
            return self._start(self._prepare(prompt, _variables(item), labels, (), deadline_s, caller))

        return run_many((partial(begin, item) for item in texts), window=window, on_error=on_error)

    def stream(
        self,
        task: str,
        text: str,
        *,
        history: Sequence[Message] = (),
        deadline_s: float | None = None,
        client: str = "",
        priority: Priority = "interactive",
        sampling: Mapping[str, Any] | None = None,
        **variables: Any,
    ) -> TaskStream:
        """Run a text, json or chat task and iterate over its token events as they come.

        `sampling` has fields of `SamplingParams` that take the place of what the task's file says.
        """
        caller = Caller(client=client, priority=priority)
        call = self._prepare(task, {**variables, "text": text}, None, history, deadline_s, caller)
        if sampling:
            return stream_sampled(call, sampling, self.encoder, self.engine, model=self.model.full_name)
        return stream(call, self.encoder, self.engine, model=self.model.full_name)

    def conversation(self, *, client: str = "", language: str | None = None) -> Conversation:
        """An empty conversation for `reply`.

        Args:
            client: whose it is, as for `run`.
            language: "zh" or "en", of its prompts; that of this object where None.
        """
        language = language or self.language
        mood = self._prompt(self._localised("sentiment", language))
        return Conversation(
            self._prompt(self._localised("chat", language)),
            mood,
            encoder=self.encoder,
            engine=self.engine,
            max_context_tokens=self.max_context_tokens,
            model=self.model.full_name,
            mood_temperature=self.model.calibration.temperature_of(mood.full_name),
            caller=Caller(client=client),
        )

    def reply(
        self,
        text: str,
        conversation: Conversation | None = None,
        *,
        deadline_s: float | None = None,
        client: str = "",
    ) -> Reply:
        """Judge the mood of `text`, then stream a reply that knows it.

        Args:
            text: what the user said.
            conversation: from `conversation()`; without one the reply stands alone.
            deadline_s: seconds from now, for the mood and the reply together.
            client: as for `run`; a conversation has its own.

        Raises:
            InvalidInput, ContextLengthExceeded, DeadlineExceeded, QueueFull: the conversation is as it was before.
        """
        if conversation is not None:
            return conversation.reply(text, deadline_s=deadline_s)
        return self.conversation(client=client).reply(text, deadline_s=deadline_s, is_last=True)

    def check_prompt(self, prompt: PromptFile) -> int:
        """Tokens that all requests of a prompt share; it need not be one that the library serves.

        Raises:
            VerbalizerError, ContextLengthExceeded, UsageError: this model cannot run it.
        """
        return count_prefix_tokens(prompt, self.encoder, self.engine)

    def stats(self) -> EngineStats:
        """Counters of the engine."""
        return self.engine.stats()

    def close(self) -> None:
        """Stop the engine and release the model. Idempotent."""
        self.engine.close()
        self.model.backend.close()

    def __enter__(self) -> AllInOne:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prompt(self, task: str) -> PromptFile:
        self.tasks.refresh()
        return self.tasks.get(task)

    def _localised(self, task: str, language: str) -> str:
        name = f"{task}.{language}"
        return name if name in self.tasks.names() else task

    def _prepare(
        self,
        task: str | PromptFile,
        variables: Mapping[str, Any],
        labels: Sequence[str] | None,
        history: Sequence[Message],
        deadline_s: float | None,
        caller: Caller,
    ) -> Call:
        prompt = self._prompt(task) if isinstance(task, str) else task
        return prepare_call(
            prompt,
            self.encoder,
            variables,
            labels=labels,
            history=history,
            deadline_s=deadline_s,
            label_temperature=self.model.calibration.temperature_of(prompt.full_name),
            caller=caller,
        )

    def _start(self, call: Call) -> Pending:
        return start(call, self.encoder, self.engine, self.results, model=self.model.full_name)


def _variables(item: object) -> Mapping[str, Any]:
    """The variables that one input of `map` stands for."""
    if isinstance(item, str):
        return {"text": item}
    if isinstance(item, Mapping):
        return cast("Mapping[str, Any]", item)
    raise InvalidInput(f"An input of `map` is a text or a mapping of variables, not {type(item).__name__}.")
