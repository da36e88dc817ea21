"""Models of well-known shapes with random weights, made on the spot: speed does not depend on the values of weights.

They are imported as any model is, into the cache folder, where the next run finds them. Tokenizer and chat template are
the bundled model's. Below: `models/random_weights.py` and the importer of the `onnx` backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from allinone.config import Settings
from allinone.errors import ConfigError, did_you_mean
from allinone.loading import ProgressCallback
from allinone.models.random_weights import QWEN1_5_0_5B, QWEN2_5_0_5B, QWEN3_0_6B, RandomWeights
from allinone.models.weights import ModelConfig

SHAPES: Mapping[str, ModelConfig] = {
    "qwen1.5-0.5b": QWEN1_5_0_5B,
    "qwen2.5-0.5b": QWEN2_5_0_5B,
    "qwen3-0.6b": QWEN3_0_6B,
}
_NO_BAR_NATS = 100.0
"""Random weights have no labels to agree on: a bar would only bring finer, slower blocks."""


def require_shape(name: str) -> None:
    """Refuse a shape that is not known.

    Raises:
        ConfigError: names the choices.
    """
    if name not in SHAPES:
        raise ConfigError(f"Unknown shape {name!r}. {did_you_mean(name, SHAPES)}")


def make_model(name: str, config: ModelConfig, *, on_progress: ProgressCallback | None = None) -> Path:
    """The compiled folder of a shape; made if it is not there.

    Args:
        name: of the shape; the model is called "random-NAME".
        config: its numbers.
        on_progress: called with (step, done, total) while it is made.

    Raises:
        StoreError: the disk is full.
    """
    from allinone.backends.onnx.compile import compile_model
    from allinone.backends.onnx.kernels import weight_signedness
    from allinone.backends.onnx.manifest import FORMAT_VERSION
    from allinone.models.calibration import Calibration
    from allinone.models.files import ModelFiles, open_model
    from allinone.models.locate import locate_model

    folder = Settings.from_env().cache / "bench" / f"{name}-{weight_signedness()}-v{FORMAT_VERSION}"
    if (folder / "manifest.json").is_file():
        return folder
    bundled = open_model(locate_model("bundled").path)
    weights = RandomWeights(config, name=f"random-{name}")
    files = ModelFiles(
        path=folder,
        name=weights.name,
        licence=None,
        weights=weights,
        tokenizer=bundled.tokenizer,
        template=bundled.template,
        calibration=Calibration(),
    )
    compile_model(files, folder, max_label_logprob_error=_NO_BAR_NATS, progress=on_progress)
    return folder
