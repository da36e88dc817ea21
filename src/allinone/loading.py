"""From a model's name to a running backend: locate, import once if needed, load.

The `onnx` backend runs compiled folders only; a GGUF or safetensors model is imported into the user's cache on first
use, and found there afterwards. Where no backend is asked for, the one that `allinone models tune` found best for this
model on this machine is taken. Above: the runtime and the command line. Below: `models/` and `backends/`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from allinone.backends.base import Backend
from allinone.backends.choice import find_choice
from allinone.config import Settings
from allinone.errors import ConfigError, TokenizerMismatch, UsageError, did_you_mean
from allinone.models.calibration import Calibration
from allinone.models.chat_template import ChatTemplate
from allinone.models.locate import ModelLocation, locate_model
from allinone.models.tokenizer import BpeTokenizer, Tokenizer

if TYPE_CHECKING:
    from allinone.backends.onnx.manifest import Manifest
    from allinone.models.files import ModelFiles

BackendName = Literal["onnx", "transformers", "llamacpp", "fake"]
BACKENDS: tuple[BackendName, ...] = ("onnx", "transformers", "llamacpp", "fake")
DEFAULT_BACKEND: BackendName = "onnx"
_CHATML = """{% for message in messages %}<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
ProgressCallback: TypeAlias = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model ready to run: numbers (`backend`), text (`tokenizer`, `template`), confidence (`calibration`)."""

    name: str
    quantization: str
    backend: Backend
    tokenizer: Tokenizer
    template: ChatTemplate
    path: Path | None = None
    calibration: Calibration = field(default_factory=Calibration)

    @property
    def full_name(self) -> str:
        """Name and quantisation as results carry it: "bundled-1/int8"."""
        return f"{self.name}/{self.quantization}"


def load_model(
    spec: str | Path | None = None,
    *,
    backend: str | None = None,
    num_threads: int | None = None,
    quantization: Literal["int8", "float32"] = "int8",
    dtype: Literal["float32", "bfloat16"] = "float32",
    compile: bool = False,
    on_progress: ProgressCallback | None = None,
) -> LoadedModel:
    """Load a model for a backend.

    Args:
        spec: "bundled" (default, or the environment's ALLINONE_MODEL), a path, or a hub id that was pulled.
        backend: one of `BACKENDS`; where None, what `allinone models tune` chose for this model on this machine (its
            weights too), else "onnx". A quantization, dtype or compile that is not the default belongs to a backend
            and rules such a choice out.
        num_threads: the physical cores where None.
        quantization: of the onnx backend.
        dtype: of the transformers backend.
        compile: `torch.compile`, of the transformers backend.
        on_progress: (step, done, total) while the model is imported.

    Raises:
        ConfigError: an unknown backend, quantization or dtype, an option of another backend, or no threads.
        UnknownModel, WeightsNotFound, WeightsMismatch, TokenizerMismatch, StoreError: the model cannot be had.
        ModelError: the backend's extra is not installed.
    """
    wish = _Wish(
        backend=backend or DEFAULT_BACKEND,
        quantization=quantization,
        dtype=dtype,
        compile=compile,
        num_threads=num_threads,
    )
    _check_wish(wish)
    if backend == "fake":
        return _load_fake()
    settings = Settings.from_env()
    location = locate_model(spec if spec is not None else settings.model)
    if wish.num_threads is None:
        wish = replace(wish, num_threads=settings.threads)
    if backend is None and wish.has_defaults:
        location, wish = _follow_choice(location, wish)
    if wish.backend == "llamacpp":
        return _load_llamacpp(location, wish)
    if wish.backend == "transformers":
        return _load_transformers(location, wish)
    return _load_onnx(location, wish, on_progress)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What a caller of `load_model` asked for."""

    backend: str
    quantization: Literal["int8", "float32"]
    dtype: Literal["float32", "bfloat16"]
    compile: bool
    num_threads: int | None

    @property
    def has_defaults(self) -> bool:
        """Whether no option of a backend was given."""
        return self.quantization == "int8" and self.dtype == "float32" and not self.compile


def _check_wish(wish: _Wish) -> None:
    for name, value, known in (
        ("backend", wish.backend, BACKENDS),
        ("quantization", wish.quantization, ("int8", "float32")),
        ("dtype", wish.dtype, ("float32", "bfloat16")),
    ):
        if value not in known:
            raise ConfigError(f"Unknown {name} {value!r}. {did_you_mean(value, known)}")
    for option, is_given, owner in (
        ("quantization", wish.quantization != "int8", "onnx"),
        ("dtype", wish.dtype != "float32", "transformers"),
        ("compile", wish.compile, "transformers"),
    ):
        if is_given and wish.backend != owner:
            hint = f"Leave it out, or choose backend={owner!r}."
            raise ConfigError(f"The backend {wish.backend!r} has no {option}: it belongs to {owner!r}.", hint=hint)
    if wish.num_threads is not None and wish.num_threads < 1:
        hint = "Give at least 1, or None for all cores."
        raise ConfigError(f"{wish.num_threads} threads are not possible.", hint=hint)


def _follow_choice(location: ModelLocation, wish: _Wish) -> tuple[ModelLocation, _Wish]:
    """What `allinone models tune` remembered for this model, where it did."""
    choice = find_choice(location)
    if choice is None:
        return location, wish
    wish = replace(wish, backend=choice.backend)
    if choice.backend == "onnx" and choice.weights == "float32":
        wish = replace(wish, quantization="float32")
    if choice.backend == "transformers" and choice.weights == "bfloat16":
        wish = replace(wish, dtype="bfloat16")
    return locate_model(choice.path), wish


def compiled_folder(location: ModelLocation, quantization: str) -> Path:
    """Where the compiled form of a located model is, or will be: one for each format, so an upgrade compiles anew."""
    if location.kind == "compiled":
        return location.path
    from allinone.backends.onnx.kernels import weight_signedness
    from allinone.backends.onnx.manifest import FORMAT_VERSION

    name = f"{location.cache_key}-{quantization}-{weight_signedness()}-v{FORMAT_VERSION}"
    return Settings.from_env().compiled_dir / name


def import_model(
    location: ModelLocation,
    destination: Path,
    *,
    quantization: Literal["int8", "float32"] = "int8",
    on_progress: ProgressCallback | None = None,
    max_label_logprob_error: float | None = None,
    measure: bool = False,
    write_plan: bool = False,
) -> Manifest:
    """Compile a located model into `destination` (atomic; a half-finished import is resumed).

    Args:
        location: the model; not a compiled one.
        destination: the folder.
        quantization: of weights and activations.
        on_progress: (step, done, total).
        max_label_logprob_error: the bar on agreement; the default one where None.
        measure: measure the agreement here even where an import plan lies beside the model.
        write_plan: measure, and leave the import plan beside the model.
    """
    from allinone.backends.onnx.compile import compile_model
    from allinone.models.files import open_model

    if location.kind == "compiled":
        raise UsageError(f"{location.path} is a compiled model already.")
    options = {} if max_label_logprob_error is None else {"max_label_logprob_error": max_label_logprob_error}
    return compile_model(
        open_model(location.path),
        destination,
        quantization=quantization,
        measure=measure,
        write_plan=write_plan,
        progress=on_progress,
        **options,
    )


def _load_onnx(location: ModelLocation, wish: _Wish, on_progress: ProgressCallback | None) -> LoadedModel:
    from allinone.backends.onnx.backend import OnnxBackend

    folder = compiled_folder(location, wish.quantization)
    if location.kind != "compiled" and not (folder / "manifest.json").is_file():
        import_model(location, folder, quantization=wish.quantization, on_progress=on_progress)
    backend = OnnxBackend.load(folder, num_threads=wish.num_threads)
    return LoadedModel(
        name=backend.info.model,
        quantization=backend.info.quantization,
        backend=backend,
        tokenizer=BpeTokenizer.load(folder, vocab_size=backend.info.vocab_size),
        template=ChatTemplate.load(folder),
        path=folder,
        calibration=Calibration.load(folder),
    )


def _load_transformers(location: ModelLocation, wish: _Wish) -> LoadedModel:
    from allinone.backends.transformers import TransformersBackend
    from allinone.models.files import open_model

    files: ModelFiles = open_model(location.path)
    backend = TransformersBackend.from_source(
        files.weights, dtype=wish.dtype, compile=wish.compile, num_threads=wish.num_threads
    )
    return LoadedModel(
        name=files.name,
        quantization=wish.dtype,
        backend=backend,
        tokenizer=files.tokenizer,
        template=files.template,
        path=location.path,
        calibration=files.calibration,
    )


def _load_llamacpp(location: ModelLocation, wish: _Wish) -> LoadedModel:
    from allinone.backends.llamacpp.backend import LlamaCppBackend
    from allinone.models.files import open_gguf_text

    if location.kind != "gguf":
        raise ConfigError(
            f"The backend 'llamacpp' runs GGUF files; {location.path} is a {location.kind} folder.",
            hint="give --model a .gguf file, or choose another backend",
        )
    text = open_gguf_text(location.path)
    backend = LlamaCppBackend.load(
        location.path, name=text.name, quantization=text.stored_dtype, num_threads=wish.num_threads
    )
    if backend.info.vocab_size != text.tokenizer.vocab_size:
        backend.close()
        raise TokenizerMismatch(
            f"{location.path}: llama.cpp counts {backend.info.vocab_size:,} ids, the file has "
            f"{text.tokenizer.vocab_size:,} rows",
            hint="tokenizer and weights belong to different models",
        )
    return LoadedModel(
        name=text.name,
        quantization=text.stored_dtype,
        backend=backend,
        tokenizer=text.tokenizer,
        template=text.template,
        path=location.path,
        calibration=text.calibration,
    )


def _load_fake() -> LoadedModel:
    from allinone.backends.fake import ByteTokenizer, FakeBackend

    tokenizer = ByteTokenizer()
    return LoadedModel(
        name="fake",
        quantization="float32",
        backend=FakeBackend(vocab_size=tokenizer.vocab_size),
        tokenizer=tokenizer,
        template=ChatTemplate(_CHATML, name="fake"),
    )
