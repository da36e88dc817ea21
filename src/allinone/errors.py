"""Every error the product raises on purpose, as one tree.

A message names the thing, the value and the choices; the hint says what to do next. HTTP status and exit code are not
here: they are tables at the surfaces (`cli/main.py`), and a test walks this tree and demands an entry for each class.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AllInOneError(Exception):
    """Root of the tree.

    Args:
        message: what happened, naming the value and the choices.
        hint: what the user can do about it; shown on a line of its own.

    `code` is a stable machine-readable name of the class, `retryable` says whether the same call may succeed later.
    """

    code = "error"
    retryable = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class UsageError(AllInOneError):
    """The caller asked for something that cannot be, and can put it right."""

    code = "usage"


class ConfigError(UsageError):
    """An option, environment variable or configuration value is unusable."""

    code = "config"


class UnknownTask(UsageError):
    """No task has this name."""

    code = "unknown_task"


class UnknownModel(UsageError):
    """No model has this name, and no file is there."""

    code = "unknown_model"


class InvalidInput(UsageError):
    """A text or variable cannot be processed (invalid UTF-8, empty, wrong type)."""

    code = "invalid_input"


class ContextLengthExceeded(UsageError):
    """A text is longer than the task or the model allows; the message gives both numbers."""

    code = "context_length_exceeded"


class AuthenticationRequired(UsageError):
    """The server wants a key, and none or a wrong one was given."""

    code = "authentication_required"


class NotAllowed(UsageError):
    """The key, the page or the name that was used may not do this."""

    code = "not_allowed"


class NotFound(UsageError):
    """There is no such thing, or it belongs to somebody else."""

    code = "not_found"


class RequestTooLarge(UsageError):
    """A request to the server is larger, or nested deeper, than it takes."""

    code = "request_too_large"


class RequestTooSlow(UsageError):
    """The body of a request to the server did not come in time."""

    code = "request_too_slow"


class PromptError(UsageError):
    """A `.prompt` file is wrong.

    Args:
        path: the file, as the user named it.
        line: 1-based line in that file, where known.
        key: dotted front-matter key, where known.
    """

    code = "prompt"

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        line: int | None = None,
        key: str | None = None,
        hint: str | None = None,
    ) -> None:
        place = "" if path is None else f"{path}:{line}: " if line is not None else f"{path}: "
        super().__init__(f"{place}{message}", hint=hint)
        self.path, self.line, self.key = path, line, key


class PromptNotFound(PromptError):
    """A prompt file or variant does not exist."""

    code = "prompt_not_found"


class MissingVariable(PromptError):
    """A template variable was not given, or is not declared."""

    code = "missing_variable"


class UnknownKey(PromptError):
    """A front-matter key is not one of ours."""

    code = "unknown_key"


class VerbalizerError(PromptError):
    """Labels are empty, unknown, or share their token ids."""

    code = "verbalizer"


class VersionConflict(PromptError):
    """A prompt or a conversation is not (any more) as the caller last saw it."""

    code = "version_conflict"


class ModelError(AllInOneError):
    """A model cannot be read, imported or run."""

    code = "model"


class WeightsNotFound(ModelError):
    """The weights are not on this machine and could not be fetched."""

    code = "weights_not_found"


class WeightsMismatch(ModelError):
    """The weights are damaged, incomplete, or of an architecture that is not supported."""

    code = "weights_mismatch"


class TokenizerMismatch(ModelError):
    """The tokenizer does not fit the weights (vocabulary size, unflagged control tokens)."""

    code = "tokenizer_mismatch"


class RunError(AllInOneError):
    """A request was accepted and then failed."""

    code = "run"


class OutputParseError(RunError):
    """The model's output is not what the task promised; `raw_text` holds it."""

    code = "output_parse"

    def __init__(self, message: str, *, raw_text: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.raw_text = raw_text


class DeadlineExceeded(RunError):
    """The request's deadline passed (waiting and prefill count)."""

    code = "deadline_exceeded"
    retryable = True


class Cancelled(RunError):
    """The request was cancelled."""

    code = "cancelled"


class StreamConsumed(RunError):
    """A stream was iterated a second time."""

    code = "stream_consumed"


class CapacityError(AllInOneError):
    """There is no room at the moment."""

    code = "capacity"
    retryable = True


class QueueFull(CapacityError):
    """Too many requests are waiting.

    Args:
        retry_after_s: when there is likely to be room again, from how fast the queue moves.
    """

    code = "queue_full"

    def __init__(self, message: str, *, hint: str | None = None, retry_after_s: float = 1.0) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class CacheFull(CapacityError):
    """The token budget of the KV cache is spent on running requests."""

    code = "cache_full"


class TooManyRequests(CapacityError):
    """A key asks for more than its share: too often, too many streams, too many tokens today.

    Args:
        retry_after_s: when the next request will be taken.
    """

    code = "too_many_requests"

    def __init__(self, message: str, *, hint: str | None = None, retry_after_s: float) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class ServerBusy(CapacityError):
    """The server as a whole has no room: connections, streams, request bodies or key checks under way.

    Args:
        retry_after_s: when it is worth another try.
    """

    code = "server_busy"

    def __init__(self, message: str, *, hint: str | None = None, retry_after_s: float = 1.0) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class ShuttingDown(CapacityError):
    """The server is being stopped: what runs is finished, nothing new is begun.

    Args:
        retry_after_s: when another one is likely to be there.
    """

    code = "shutting_down"

    def __init__(self, message: str, *, hint: str | None = None, retry_after_s: float = 5.0) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class StoreError(AllInOneError):
    """Something on disk (database, cache folder, output file) cannot be read or written."""

    code = "store"


class SchemaTooNew(StoreError):
    """The database was written by a newer version."""

    code = "schema_too_new"


class MigrationFailed(StoreError):
    """The database could not be brought to this version."""

    code = "migration_failed"


def did_you_mean(value: str, choices: Iterable[str], *, noun: str = "Known") -> str:
    """The tail of an error message: the nearest choice, if any is near, and the list of all."""
    known = sorted(choices)
    near = difflib.get_close_matches(value, known, n=1, cutoff=0.5)
    guess = f"Did you mean {near[0]!r}? " if near else ""
    return f"{guess}{noun}: {', '.join(known) if known else 'none'}"
