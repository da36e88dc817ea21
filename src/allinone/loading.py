"""From a model's name to a running backend: locate, import once if needed, load.

The `onnx` backend runs compiled folders only; a GGUF or safetensors model is imported into the user's cache on first
use, and found there afterwards. Above: the runtime and the command line. Below: `models/` and `backends/`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from allinone.backends.base import Backend
from allinone.config import Settings
from allinone.errors import ConfigError, UsageError, did_you_mean
from allinone.models.calibration import Calibration
from allinone.models.chat_template import ChatTemplate
from allinone.models.locate import ModelLocation, locate_model
from allinone.models.tokenizer import BpeTokenizer, Tokenizer

if TYPE_CHECKING:
    from allinone.backends.onnx.manifest import Manifest
    from allinone.models.files import ModelFiles

BackendName = Literal["onnx", "transformers", "fake"]
BACKENDS: tuple[BackendName, ...] = ("onnx", "transformers", "fake")
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
    backend: str = "onnx",
    num_threads: int | None = None,
    quantization: Literal["int8", "float32"] = "int8",
    dtype: Literal["float32", "bfloat16"] = "float32",
    compile: bool = False,
    on_progress: ProgressCallback | None = None,
) -> LoadedModel:
    """Load a model for a backend.

    Args:
        spec: "bundled" (default, or the environment's ALLINONE_MODEL), a path, or a hub id that was pulled.
        backend: one of `BACKENDS`.
        num_threads: the physical cores where None.
        quantization: of the onnx backend.
        dtype: of the transformers backend.
        compile: `torch.compile`, of the transformers backend.
        on_progress: (step, done, total) while the model is imported.

    Raises:
        ConfigError: an unknown backend, quantization or dtype, an option of another backend, or no threads.
        UnknownModel, WeightsNotFound, WeightsMismatch, TokenizerMismatch, StoreError: the model cannot be had.
    """
    for name, value, known in (
        ("backend", backend, BACKENDS),
        ("quantization", quantization, ("int8", "float32")),
        ("dtype", dtype, ("float32", "bfloat16")),
    ):
        if value not in known:
            raise ConfigError(f"Unknown {name} {value!r}. {did_you_mean(value, known)}")
    for option, is_given, owner in (
        ("quantization", quantization != "int8", "onnx"),
        ("dtype", dtype != "float32", "transformers"),
        ("compile", compile, "transformers"),
    ):
        if is_given and backend != owner:
            hint = f"Leave it out, or choose backend={owner!r}."
            raise ConfigError(f"The backend {backend!r} has no {option}: it belongs to {owner!r}.", hint=hint)
    if num_threads is not None and num_threads < 1:
        raise ConfigError(f"{num_threads} threads are not possible.", hint="Give at least 1, or None for all cores.")
    if backend == "fake":
        return _load_fake()
    settings = Settings.from_env()
    location = locate_model(spec if spec is not None else settings.model)
    num_threads = num_threads if num_threads is not None else settings.threads
    if backend == "onnx":
        return _load_onnx(location, num_threads, quantization, on_progress)
    return _load_transformers(location, num_threads, dtype, compile)


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


def _load_onnx(
    location: ModelLocation,
    num_threads: int | None,
    quantization: Literal["int8", "float32"],
    on_progress: ProgressCallback | None,
) -> LoadedModel:
    from allinone.backends.onnx.backend import OnnxBackend

    folder = compiled_folder(location, quantization)
    if location.kind != "compiled" and not (folder / "manifest.json").is_file():
        import_model(location, folder, quantization=quantization, on_progress=on_progress)
    backend = OnnxBackend.load(folder, num_threads=num_threads)
    return LoadedModel(
        name=backend.info.model,
        quantization=backend.info.quantization,
        backend=backend,
        tokenizer=BpeTokenizer.load(folder, vocab_size=backend.info.vocab_size),
        template=ChatTemplate.load(folder),
        path=folder,
        calibration=Calibration.load(folder),
    )


def _load_transformers(
    location: ModelLocation, num_threads: int | None, dtype: Literal["float32", "bfloat16"], compile: bool
) -> LoadedModel:
    from allinone.backends.transformers import TransformersBackend
    from allinone.models.files import open_model

    files: ModelFiles = open_model(location.path)
    backend = TransformersBackend.from_source(files.weights, dtype=dtype, compile=compile, num_threads=num_threads)
    return LoadedModel(
        name=files.name,
        quantization=dtype,
        backend=backend,
        tokenizer=files.tokenizer,
        template=files.template,
        path=location.path,
        calibration=files.calibration,
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
