"""Import plans: followed to the byte where they fit, ignored where they do not, refused where they are damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx_models import VARIANTS

import allinone.backends.onnx.compile as compile_module
from allinone.backends.cpu import detect_cpu
from allinone.backends.fake import ByteTokenizer
from allinone.backends.onnx.compile import compile_model
from allinone.backends.onnx.import_plan import PlannedLayer, find_import_plan, plan_file, write_import_plan
from allinone.backends.onnx.manifest import LayerReport, Manifest
from allinone.errors import StoreError, WeightsMismatch
from allinone.models.bundled import __file__ as bundled_init
from allinone.models.calibration import Calibration
from allinone.models.chat_template import ChatTemplate
from allinone.models.files import ModelFiles, open_model
from allinone.models.random_weights import OutlierWeights, RandomWeights
from allinone.models.weights import ModelConfig

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
BAR = 1.0
"""A bar that random weights meet, so that nothing is refined; where finer blocks matter it is one that none meets."""


class InterruptedWeights(OutlierWeights):
    """Ends in the middle, as with Ctrl-C."""

    def load(self, name: str) -> NDArray[np.float32]:
        """Read, or be interrupted."""
        if name.startswith("model.layers.1.mlp.down"):
            raise KeyboardInterrupt
        return super().load(name)


def model_files(folder: Path, variant: str = "qwen2_grouped_tied", seed: int = 0) -> ModelFiles:
    """A model whose channels need smoothing, as if it had been opened from a GGUF file in this folder."""
    config: ModelConfig = replace(VARIANTS[variant], vocab_size=512)
    return ModelFiles(
        path=folder / "random.gguf",
        name="random",
        licence=None,
        weights=OutlierWeights(RandomWeights(config, seed)),
        tokenizer=ByteTokenizer(),
        template=ChatTemplate(TEMPLATE, name="test"),
        calibration=Calibration(),
    )


def compile_it(files: ModelFiles, destination: Path, **options: Any) -> Manifest:
    """Compile with the bar of these tests."""
    return compile_model(files, destination, max_label_logprob_error=options.pop("bar", BAR), **options)


def measured(manifest: Manifest) -> str:
    """Where the agreement was measured."""
    assert manifest.agreement is not None
    return manifest.agreement.measured


def require_same_folders(planned: Path, expected: Path) -> None:
    """Every file is the same to the byte; the manifests differ in who measured."""
    files = {path.name: path.read_bytes() for path in planned.iterdir()}
    others = {path.name: path.read_bytes() for path in expected.iterdir()}
    assert b'"measured": "plan"' in files["manifest.json"]
    files["manifest.json"] = files["manifest.json"].replace(b'"measured": "plan"', b'"measured": "here"')
    assert files.keys() == others.keys()
    assert not [name for name in files if files[name] != others[name]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan, and what the import that wrote it made."""
    folder = tmp_path_factory.mktemp("made")
    assert measured(compile_it(model_files(folder), folder / "measured", write_plan=True)) == "here"
    return folder


@pytest.fixture
def with_plan(made: Path, tmp_path: Path) -> ModelFiles:
    """The model with its plan beside it, in a folder of its own."""
    files = model_files(tmp_path)
    shutil.copyfile(made / "random.plan.json", plan_file(files.path))
    return files


def use_weight_type(monkeypatch: pytest.MonkeyPatch, weight_type: str) -> None:
    """As if this CPU needed int8 weights in this form."""
    cpu = replace(detect_cpu(), weight_type=weight_type)
    monkeypatch.setattr(compile_module, "detect_cpu", lambda: cpu)


def test_scales_come_back_exactly() -> None:
    """Whatever float32 can hold; text is the only form in between."""
    tiny = np.finfo(np.float32).smallest_subnormal
    scales = np.array([tiny, 1 / 3, 1, np.nextafter(np.float32(1), np.float32(2)), 3.4e38], np.float32)
    layer = PlannedLayer.of(LayerReport(name="0", smoothed=("up",)), {"up": scales})
    again = PlannedLayer.model_validate_json(layer.model_dump_json()).load_scales()["up"]
    assert again.tobytes() == scales.tobytes()


@pytest.mark.parametrize(
    ("variant", "weight_type"), [*((variant, "int8") for variant in VARIANTS), ("qwen2_grouped_tied", "uint8")]
)
def test_planned_import_equals_measured_import(
    variant: str, weight_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Smoothing and finer blocks included, to the byte, without a single text computed, and where the bar is missed."""
    use_weight_type(monkeypatch, weight_type)
    files = model_files(tmp_path, variant)
    steps: list[str] = []
    report = compile_it(files, tmp_path / "measured", write_plan=True, bar=1e-6)
    planned = compile_it(files, tmp_path / "planned", bar=1e-6, progress=lambda step, *_: steps.append(step))
    assert any(layer.smoothed for layer in planned.layers) and any(layer.blocks for layer in planned.layers)
    assert (measured(report), measured(planned), set(steps)) == ("here", "plan", {"weights"})
    assert planned.agreement is not None and not planned.agreement.holds
    require_same_folders(tmp_path / "planned", tmp_path / "measured")


def test_both_weight_types_make_the_same_plan(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They hold the same values, so makers on any CPU serve users on any other."""
    use_weight_type(monkeypatch, "uint8" if detect_cpu().weight_type == "int8" else "int8")
    files = model_files(tmp_path)
    compile_it(files, tmp_path / "measured", write_plan=True)
    assert plan_file(files.path).read_bytes() == (made / "random.plan.json").read_bytes()


def change(files: ModelFiles, edit: Callable[[dict[str, Any]], object]) -> Path:
    """Edit the plan beside a model."""
    path = plan_file(files.path)
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "entry",
    [{"source_fingerprint": "0" * 64}, {"settings": "0" * 64}, {"format_version": 1}, {"plan_version": 99, "new": 1}],
)
def test_plan_that_does_not_fit_is_not_followed(
    entry: dict[str, Any], with_plan: ModelFiles, made: Path, tmp_path: Path
) -> None:
    """Other weights, other settings, another version: the import measures as it always did."""
    change(with_plan, lambda content: content.update(entry))
    assert measured(compile_it(with_plan, tmp_path / "again")) == "here"
    assert (tmp_path / "again" / "weights.bin").read_bytes() == (made / "measured" / "weights.bin").read_bytes()


@pytest.mark.parametrize("options", [{"bar": 2.0}, {"measure": True}, {"quantization": "float32"}])
def test_other_wishes_are_measured(options: dict[str, Any], with_plan: ModelFiles, tmp_path: Path) -> None:
    """A bar of one's own, `--measure`, and float32, which has no plan."""
    assert measured(compile_it(with_plan, tmp_path / "again", **options)) == "here"


def test_plan_of_other_weights_is_not_followed(with_plan: ModelFiles, tmp_path: Path) -> None:
    """The file has the right name, but the model beside it was replaced."""
    assert measured(compile_it(model_files(tmp_path, seed=5), tmp_path / "again")) == "here"


def _set_scales(layer: int, site: str, change: Callable[[NDArray[np.float32]], NDArray[Any]]) -> Callable[[Any], None]:
    def edit(content: dict[str, Any]) -> None:
        record = PlannedLayer.model_validate(content["layers"][layer])
        values = {**record.load_scales(), site: change(record.load_scales()[site])}
        content["layers"][layer] = PlannedLayer.of(record.report, values).model_dump(mode="json")

    return edit


DAMAGES: dict[str, tuple[Callable[[Any], object], str]] = {
    "unknown key": (lambda plan: plan.update(colour=1), "colour"),
    "no layers": (lambda plan: plan.pop("layers"), "layers"),
    "layer missing": (lambda plan: plan["layers"].pop(0), "it has the layers"),
    "not base64": (lambda plan: plan["layers"][0]["scales"].update(input_norm="é"), "ASCII"),
    "half a float": (lambda plan: plan["layers"][0]["scales"].update(input_norm="AAAA"), "multiple of element size"),
    "cut": (_set_scales(0, "input_norm", lambda values: values[:-1]), "'input_norm' of layer 0"),
    "zero": (_set_scales(1, "post_norm", lambda values: values * 0), "'post_norm' of layer 1"),
    "nan": (_set_scales(2, "input_norm", lambda values: values * np.nan), "'input_norm' of layer 2"),
    "unknown matrix": (lambda plan: plan["layers"][0]["report"].update(blocks=["side"]), "no matrix 'side'"),
    "other site": (lambda plan: plan["layers"][0]["report"].update(smoothed=[]), "scales for other inputs"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_plan_is_an_error_that_names_it(damage: str, with_plan: ModelFiles, tmp_path: Path) -> None:
    """Neither followed nor passed over in silence; no folder is left."""
    edit, words = DAMAGES[damage]
    path = change(with_plan, edit)
    with pytest.raises(WeightsMismatch, match=words) as caught:
        compile_it(with_plan, tmp_path / "again")
    assert str(path) in str(caught.value) and caught.value.hint
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["random.plan.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b'{"plan_version": "1"}'])
def test_plan_that_is_no_plan_is_an_error(content: bytes, with_plan: ModelFiles, tmp_path: Path) -> None:
    """A cut download, or some other file with this name."""
    plan_file(with_plan.path).write_bytes(content)
    with pytest.raises(WeightsMismatch, match=r"random\.plan\.json is damaged"):
        compile_it(with_plan, tmp_path / "again")


def test_value_heads_must_share_their_scales(with_plan: ModelFiles, tmp_path: Path) -> None:
    """Two query heads that read one value head cannot divide it by two numbers: the layer would be another one."""
    config = with_plan.weights.config
    scales = np.ones(config.num_heads * config.head_dim, np.float32)
    layer = PlannedLayer.of(LayerReport(name="0", smoothed=("v",)), {"v": scales})
    layer.check(config)
    scales[0] = 2
    with pytest.raises(ValueError, match="'v' of layer 0"):
        PlannedLayer.of(LayerReport(name="0", smoothed=("v",)), {"v": scales}).check(config)


def test_killed_import_goes_on_by_one_plan(with_plan: ModelFiles, made: Path, tmp_path: Path) -> None:
    """Parts that were measured and parts that follow a plan do not meet; the result is the same either way."""
    inner = RandomWeights(with_plan.weights.config, 0)
    interrupted = replace(with_plan, weights=InterruptedWeights(inner))
    for measure in (False, True):
        with pytest.raises(KeyboardInterrupt):
            compile_it(interrupted, tmp_path / "again", measure=measure)
        assert (tmp_path / "again.partial").is_dir()
        assert measured(compile_it(with_plan, tmp_path / "again")) == "plan"
        require_same_folders(tmp_path / "again", made / "measured")


def test_plan_of_a_folder_lies_in_it(tmp_path: Path) -> None:
    """Beside `model.safetensors`; a GGUF file's has the file's own name, dots and all."""
    assert plan_file(tmp_path) == tmp_path / "model.plan.json"
    assert plan_file(tmp_path / "qwen2.5-0.5b.q8_0.gguf") == tmp_path / "qwen2.5-0.5b.q8_0.plan.json"


def test_plan_that_cannot_be_written_is_an_error(with_plan: ModelFiles, tmp_path: Path) -> None:
    """The folder of the model may belong to somebody else."""
    config, weights = with_plan.weights.config, with_plan.weights
    settings = json.loads(plan_file(with_plan.path).read_text(encoding="utf-8"))["settings"]
    plan = find_import_plan(
        plan_file(with_plan.path), config, fingerprint=weights.fingerprint(), settings=settings, max_allowed_error=BAR
    )
    assert plan is not None
    with pytest.raises(StoreError, match="cannot be written"):
        write_import_plan(tmp_path / "nowhere" / "random.plan.json", plan)
    before = plan_file(with_plan.path).read_bytes()
    write_import_plan(plan_file(with_plan.path), plan)
    assert plan_file(with_plan.path).read_bytes() == before


@pytest.fixture(scope="module")
def bundled() -> ModelFiles:
    """The bundled model."""
    (file,) = Path(bundled_init).parent.glob("*.gguf")
    return open_model(file)


def test_bundled_model_follows_its_plan(bundled: ModelFiles, tmp_path: Path) -> None:
    """The first answer after an installation must not wait for measuring: weights, settings and format all fit.

    After a change of the model, the built-in texts or the recipe: `allinone models import bundled --write-plan`.
    """
    manifest = compile_model(bundled, tmp_path / "model")
    assert measured(manifest) == "plan"
    assert manifest.agreement is not None and manifest.agreement.holds


@pytest.mark.parametrize("weight_type", ["int8", "uint8"])
def test_bundled_model_planned_equals_measured(
    weight_type: str, bundled: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real weights; the plan is made here, because float sums of another machine may differ in their last bit."""
    use_weight_type(monkeypatch, weight_type)
    files = replace(bundled, path=tmp_path / "bundled.gguf")
    compile_model(files, tmp_path / "measured", write_plan=True)
    assert plan_file(files.path).stat().st_size < 100_000
    compile_model(files, tmp_path / "planned")
    require_same_folders(tmp_path / "planned", tmp_path / "measured")
