"""The untyped edge to llama.cpp: its Python binding, its log, and opening a GGUF file with it.

Owns the log callback, which must live as long as the library may call it. Above: `backend.py`. Extra `llamacpp`, which
is not imported unless the backend is asked for.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections import deque
from functools import lru_cache
from pathlib import Path
from typing import Any

from allinone.errors import ModelError, WeightsMismatch, WeightsNotFound

_ERROR_LEVEL, _CONTINUATION_LEVEL = 4, 5
_last_errors: deque[str] = deque(maxlen=3)


@lru_cache(maxsize=1)
def require_llama_cpp() -> Any:
    """The module `llama_cpp`, initialised and silent.

    Raises:
        ModelError: the extra is not installed, or its library cannot be loaded.
    """
    try:
        library = importlib.import_module("llama_cpp")
    except ImportError as error:
        raise ModelError(
            f"The llamacpp backend needs {error.name or 'llama_cpp'}, which is not installed.",
            hint="make llamacpp (builds it for this CPU), or: pip install 'qwen-allinone[llamacpp]'",
        ) from error
    except (OSError, RuntimeError) as error:  # a library built for another system
        raise ModelError(f"llama.cpp cannot be loaded: {error}", hint="build it again: make llamacpp") from error
    _keep_log(library)
    library.llama_backend_init()
    return library


def load_model(library: Any, path: Path) -> Any:
    """A handle of the weights in a GGUF file, memory-mapped.

    Raises:
        WeightsNotFound: there is no such file.
        WeightsMismatch: llama.cpp cannot read it; the message has its own words.
        ModelError: it is not a model that continues text.
    """
    if not path.is_file():
        raise WeightsNotFound(f"No such file: {path}", hint="the llamacpp backend needs a .gguf file")
    _last_errors.clear()
    model = library.llama_model_load_from_file(os.fsencode(path), library.llama_model_default_params())
    if not model:
        raise WeightsMismatch(
            f"llama.cpp cannot read {path}: {last_words()}",
            hint="download it again; if the model is newer than this llama.cpp, take a newer llama-cpp-python",
        )
    if library.llama_model_has_encoder(model) or not library.llama_model_has_decoder(model):
        library.llama_model_free(model)
        raise ModelError(f"{path} is not a decoder-only language model.", hint="choose a chat model")
    return model


def metadata_number(library: Any, model: Any, key: str) -> int | None:
    """A whole number of the file's metadata; `{arch}` stands for the architecture. None where there is none."""
    if "{arch}" in key:
        key = key.format(arch=_metadata_text(library, model, "general.architecture"))
    text = _metadata_text(library, model, key)
    return int(text) if text.isdigit() else None


def last_words() -> str:
    """What llama.cpp last logged as an error."""
    return " / ".join(_last_errors) or "it does not say why"


def _metadata_text(library: Any, model: Any, key: str) -> str:
    import ctypes

    buffer = ctypes.create_string_buffer(256)
    length = library.llama_model_meta_val_str(model, key.encode(), buffer, len(buffer))
    return buffer.value.decode("utf-8", errors="replace") if length > 0 else ""


def _keep_log(library: Any) -> None:
    """Errors are kept for messages; ALLINONE_DEBUG prints everything on stderr, otherwise nothing is printed."""
    is_shown = os.environ.get("ALLINONE_DEBUG", "") not in ("", "0")

    @library.llama_log_callback
    def listen(level: int, text: bytes, _: Any) -> None:
        line = text.decode("utf-8", errors="replace")
        if is_shown:
            sys.stderr.write(line)
        if level == _ERROR_LEVEL and line.strip():
            _last_errors.append(line.strip())
        elif level == _CONTINUATION_LEVEL and _last_errors and line.strip():
            _last_errors[-1] += line.rstrip()

    library.llama_log_set(listen, None)
    library._allinone_log_callback = listen  # as long as the library lives: it keeps a bare pointer to it
