"""Compiling a model: whole or not there, resumed after a kill, and measured."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx_models import VARIANTS, small_config

import allinone.backends.onnx.compile as compile_module
from allinone.backends.base import Chunk
from allinone.backends.fake import ByteTokenizer
from allinone.backends.onnx.agreement import AgreementCase, builtin_cases
from allinone.backends.onnx.backend import OnnxBackend
from allinone.backends.onnx.compile import Progress, compile_model, compile_weights
from allinone.backends.onnx.manifest import Manifest, read_manifest
from allinone.backends.onnx.parts import PartsFile
from allinone.errors import StoreError, WeightsMismatch
from allinone.models.bundled import __file__ as bundled_init
from allinone.models.calibration import Calibration
from allinone.models.chat_template import ChatTemplate
from allinone.models.files import ModelFiles, open_model
from allinone.models.random_weights import OutlierWeights, RandomWeights

CONFIG = replace(small_config(num_kv_heads=2), vocab_size=512)
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


class CountingWeights(RandomWeights):
    """Counts what is read, and fails when told to."""

    def __init__(self, fail_at: str = "", error: Callable[[], BaseException] = KeyboardInterrupt) -> None:
        super().__init__(CONFIG, seed=3)
        self.loaded: list[str] = []
        self._fail_at, self._error = fail_at, error

    def load(self, name: str) -> NDArray[np.float32]:
        """Note the name; raise where told to."""
        if self._fail_at and name.startswith(self._fail_at):
            raise self._error()
        self.loaded.append(name)
        return super().load(name)


def model_files(weights: RandomWeights) -> ModelFiles:
    """Weights with the byte tokenizer, as if they had been opened."""
    template = ChatTemplate(TEMPLATE, name="test")
    return ModelFiles(
        path=Path("random"),
        name="random",
        licence=None,
        weights=weights,
        tokenizer=ByteTokenizer(),
        template=template,
        calibration=Calibration(),
    )


def compile_files(files: ModelFiles, destination: Path, progress: Progress | None = None) -> Manifest:
    """Compile with a bar that random weights meet, so that no layer is refined."""
    return compile_model(files, destination, max_label_logprob_error=1.0, progress=progress)


def random_cases(count: int = 12, length: int = 16) -> list[AgreementCase]:
    """Prompts of random ids with three labels."""
    rng = np.random.default_rng(1)
    return [
        AgreementCase(input_ids=tuple(rng.integers(0, 512, length).tolist()), label_ids=(5, 77, 301))
        for _ in range(count)
    ]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a compiled folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a compilation without accidents gives."""
    destination = tmp_path_factory.mktemp("whole") / "model"
    compile_files(model_files(CountingWeights()), destination)
    return destination


def test_compile_writes_a_folder_that_loads(uninterrupted: Path) -> None:
    """The folder holds exactly what running needs, and nothing of the work."""
    names = {path.name for path in uninterrupted.iterdir()}
    assert {"graph.onnx", "weights.bin", "embeddings.bin", "manifest.json"} <= names
    assert not [name for name in names if name.endswith((".npz", ".npy", ".tmp", ".checksum")) or name == "lock"]
    assert [path.name for path in uninterrupted.parent.iterdir()] == ["model"]
    manifest = read_manifest(uninterrupted)
    assert manifest.quantization == "int8"
    assert manifest.source_fingerprint == CountingWeights().fingerprint()
    assert [layer.name for layer in manifest.layers] == ["0", "1", "2", "head"]
    assert manifest.agreement is not None
    assert manifest.agreement.num_texts == 40
    OnnxBackend.load(uninterrupted)


def test_progress_reaches_its_total(tmp_path: Path) -> None:
    """A bar that ends at 100 %, never goes back within a step, and names its steps."""
    seen: list[tuple[str, int, int]] = []
    compile_files(model_files(CountingWeights()), tmp_path / "model", progress=lambda *step: seen.append(step))
    assert {step for step, _, _ in seen} == {"weights", "check"}
    first_pass = seen[: seen.index(("check", 1, 1)) + 1]
    for name in ("weights", "check"):
        done = [count for step, count, _ in first_pass if step == name]
        assert done == sorted(done)
        assert done[-1] == next(total for step, _, total in first_pass if step == name)


@pytest.mark.parametrize("fail_at", ["model.layers.1.mlp.down", "model.layers.0.", "model.norm"])
def test_killed_compilation_goes_on_where_it_stopped(fail_at: str, uninterrupted: Path, tmp_path: Path) -> None:
    """Finished layers are not read again, and the result is the same to the byte."""
    destination = tmp_path / "model"
    with pytest.raises(KeyboardInterrupt):
        compile_files(model_files(CountingWeights(fail_at)), destination)
    assert not destination.exists()
    weights = CountingWeights()
    compile_files(model_files(weights), destination)
    first_pass = weights.loaded[: weights.loaded.index("model.norm.weight")]
    assert "model.embed_tokens.weight" not in first_pass
    if fail_at != "model.layers.0.":
        assert not [name for name in first_pass if name.startswith("model.layers.0.")]
    assert contents(destination) == contents(uninterrupted)


@pytest.mark.parametrize("damage", ["weights.bin", "layer-000.part.npz", "embeddings.bin", "layer-000.state.npy"])
def test_damaged_parts_are_made_anew(damage: str, uninterrupted: Path, tmp_path: Path) -> None:
    """A disk that lost its last blocks with the power costs time, never correctness."""
    destination = tmp_path / "model"
    with pytest.raises(KeyboardInterrupt):
        compile_files(model_files(CountingWeights("model.layers.1.mlp")), destination)
    path = tmp_path / "model.partial" / damage
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)
    path.write_bytes(content[:-7])
    compile_files(model_files(CountingWeights()), destination)
    assert contents(destination) == contents(uninterrupted)


def test_parts_of_another_model_are_not_used(tmp_path: Path) -> None:
    """The same destination, but other weights: everything starts over."""
    destination = tmp_path / "model"
    with pytest.raises(KeyboardInterrupt):
        compile_files(model_files(CountingWeights("model.layers.2")), destination)
    other = RandomWeights(CONFIG, seed=4)
    compile_files(model_files(other), destination)
    compile_files(model_files(other), tmp_path / "fresh")
    assert contents(destination) == contents(tmp_path / "fresh")


def test_failed_compilation_leaves_nothing(tmp_path: Path) -> None:
    """Damaged weights: one error, no folder, no leftovers."""
    weights = CountingWeights("model.layers.2", lambda: WeightsMismatch("truncated"))
    with pytest.raises(WeightsMismatch, match="truncated"):
        compile_files(model_files(weights), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENOSPC, "full"), (errno.EROFS, "cannot be written"), (errno.EIO, "cannot be written")]
)
def test_disk_error_is_explained_and_leaves_nothing(
    code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills in the middle: the message says so, gives a hint, and the space is given back."""

    def fail(*arguments: Any) -> None:
        raise OSError(code, "from the system")

    monkeypatch.setattr(PartsFile, "write", fail)
    with pytest.raises(StoreError, match=words) as caught:
        compile_files(model_files(CountingWeights()), tmp_path / "model")
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_too_little_space_is_seen_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both numbers are in the message, and no weight was read."""
    monkeypatch.setattr(compile_module, "_estimate_bytes", lambda *arguments: 1 << 60)
    weights = CountingWeights()
    with pytest.raises(StoreError, match="MB are free"):
        compile_files(model_files(weights), tmp_path / "model")
    assert weights.loaded == []
    assert list(tmp_path.iterdir()) == []


def test_two_processes_do_not_meet_in_one_folder(uninterrupted: Path, tmp_path: Path) -> None:
    """While another process holds the lock, this one works beside it and both end well."""
    busy = tmp_path / "model.partial"
    busy.mkdir()
    with (busy / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        compile_files(model_files(CountingWeights()), tmp_path / "model")
    assert contents(tmp_path / "model") == contents(uninterrupted)
    assert [path.name for path in busy.iterdir()] == ["lock"]


def test_existing_model_is_replaced(uninterrupted: Path, tmp_path: Path) -> None:
    """Importing again leaves the new folder only."""
    destination = tmp_path / "model"
    compile_files(model_files(RandomWeights(CONFIG, seed=9)), destination)
    compile_files(model_files(CountingWeights()), destination)
    assert contents(destination) == contents(uninterrupted)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("tensor", ["model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight"])
def test_weights_that_are_not_finite_are_refused(tensor: str, tmp_path: Path) -> None:
    """NaN in a file would become silence later."""

    class BrokenWeights(RandomWeights):
        def load(self, name: str) -> NDArray[np.float32]:
            values = super().load(name)
            if name == tensor:
                values[0, 0] = np.nan
            return values

    with pytest.raises(WeightsMismatch, match="not finite"):
        compile_files(model_files(BrokenWeights(CONFIG)), tmp_path / "model")


@pytest.mark.parametrize("variant", VARIANTS)
def test_float_compilation_agrees_with_the_numpy_reference(variant: str, tmp_path: Path) -> None:
    """Two implementations of the architecture, one of them without any graph."""
    manifest = compile_weights(RandomWeights(VARIANTS[variant]), tmp_path, cases=random_cases(), quantization="float32")
    assert manifest.agreement is not None
    assert manifest.agreement.max_logprob_error < 1e-4
    assert manifest.agreement.label_agreement == 1.0


@pytest.mark.parametrize("variant", VARIANTS)
def test_outliers_ruin_the_plain_recipe_and_not_the_import(variant: str, tmp_path: Path) -> None:
    """Equivalent weights with three outlier channels per norm: smoothing brings the error back to where it was."""
    original = RandomWeights(VARIANTS[variant])
    planted = OutlierWeights(original)
    cases = random_cases()

    def error(name: str, source: RandomWeights | OutlierWeights, *, is_smoothed: bool) -> float:
        (tmp_path / name).mkdir()
        agreement = compile_weights(
            source, tmp_path / name, cases=cases, is_smoothed=is_smoothed, max_label_logprob_error=1.0
        ).agreement
        assert agreement is not None
        return agreement.mean_logprob_error

    plain = error("plain", original, is_smoothed=False)
    assert error("planted-plain", planted, is_smoothed=False) > 5 * plain
    assert error("planted-smoothed", planted, is_smoothed=True) < 1.5 * plain


def test_bar_that_is_not_met_brings_finer_blocks_and_keeps_the_best(tmp_path: Path) -> None:
    """More and more matrices are refined; what is kept is never worse than what was there."""
    source, cases = RandomWeights(small_config()), random_cases()
    for name in ("easy", "hard"):
        (tmp_path / name).mkdir()
    easy = compile_weights(source, tmp_path / "easy", cases=cases, max_label_logprob_error=1.0)
    steps: list[str] = []
    hard = compile_weights(
        source,
        tmp_path / "hard",
        cases=cases,
        max_label_logprob_error=1e-6,
        progress=lambda step, done, total: steps.append(step) if step == "check" and done else None,
    )
    assert len(steps) >= 4
    assert not any(layer.blocks for layer in easy.layers)
    assert easy.agreement is not None
    assert hard.agreement is not None
    assert hard.agreement.mean_logprob_error <= easy.agreement.mean_logprob_error
    assert not hard.agreement.holds


def test_matrices_in_finer_blocks_are_reported_and_lose_less(tmp_path: Path) -> None:
    """The report names them, and their error is smaller than before."""
    source, cases = RandomWeights(small_config()), random_cases()
    for name in ("plain", "blocks"):
        (tmp_path / name).mkdir()
    options: dict[str, Any] = {"cases": cases, "max_label_logprob_error": 1.0}
    plain = compile_weights(source, tmp_path / "plain", **options)
    blocks = compile_weights(source, tmp_path / "blocks", in_blocks={"1.down", "2.qkv"}, **options)
    assert [layer.blocks for layer in blocks.layers] == [(), ("down",), ("qkv",), ()]
    assert plain.agreement is not None
    assert blocks.agreement is not None
    assert blocks.agreement.mean_logprob_error != plain.agreement.mean_logprob_error


@pytest.fixture(scope="module")
def refined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with everything that can be switched on: smoothing and finer blocks, the head included."""
    folder = tmp_path_factory.mktemp("refined")
    source = OutlierWeights(RandomWeights(small_config()))
    names = {f"{layer}.{name}" for layer in range(3) for name in ("qkv", "o", "gate", "up", "down")}
    manifest = compile_weights(
        source, folder, cases=random_cases(), max_label_logprob_error=1.0, in_blocks={*names, "head"}
    )
    assert manifest.is_head_in_blocks
    assert manifest.layers[0].smoothed
    return folder


def test_smoothed_and_refined_head_gives_the_same_label_logits(refined: Path) -> None:
    """Label rows are smoothed and cut into blocks on demand, exactly as the whole head was."""
    backend = OnnxBackend.load(refined, num_threads=2)
    labels = (3, 99, 500)
    whole, some, alone = backend.extend(
        [
            Chunk(sequence=backend.fork(), input_ids=(1, 2, 3, 4), wanted="last_logits"),
            Chunk(sequence=backend.fork(), input_ids=(1, 2, 3, 4), wanted="token_logits", token_ids=labels),
            Chunk(sequence=backend.fork(), input_ids=(1, 2, 3, 4), wanted="last_hidden"),
        ]
    )
    assert whole is not None
    assert alone is not None
    assert np.array_equal(whole[list(labels)], some)
    rows = RandomWeights(small_config()).load("model.embed_tokens.weight")
    assert np.corrcoef(rows @ alone, whole)[0, 1] > 0.999


def test_refined_model_batched_equals_single(refined: Path) -> None:
    """Finer blocks keep the guarantee: integer products, and a sum in a fixed order."""
    backend = OnnxBackend.load(refined, num_threads=2)
    rng = np.random.default_rng(2)
    texts = [tuple(rng.integers(0, 512, count).tolist()) for count in (1, 5, 30, 64)]
    together = backend.extend([Chunk(sequence=backend.fork(), input_ids=one, wanted="last_logits") for one in texts])
    for text, logits in zip(texts, together, strict=True):
        (alone,) = backend.extend([Chunk(sequence=backend.fork(), input_ids=text, wanted="last_logits")])
        assert np.array_equal(alone, logits)


def test_builtin_cases_are_forty_prompts_with_distinct_labels() -> None:
    """Chinese and English alike; control tokens come from the template only."""
    tokenizer = ByteTokenizer()
    cases = builtin_cases(tokenizer, ChatTemplate(TEMPLATE, name="test"))
    assert len(cases) == 40
    assert len({case.input_ids for case in cases}) == 40
    for case in cases:
        assert len(set(case.label_ids)) == len(case.label_ids) >= 2
        assert sum(one in tokenizer.control_ids for one in case.input_ids) == 4


@pytest.fixture(scope="module")
def bundled() -> ModelFiles:
    """The newest bundled model."""
    return open_model(max(Path(bundled_init).parent.glob("*.gguf")))


def test_bundled_model_holds_the_bar(bundled: ModelFiles, tmp_path: Path) -> None:
    """Real weights: same labels as FP32 and small differences of log-probabilities."""
    agreement = compile_model(bundled, tmp_path / "model", measure=True).agreement
    assert agreement is not None
    assert agreement.holds
    assert agreement.mean_logprob_error <= 0.03


def test_bundled_model_with_outliers_fails_plain_and_holds_the_bar_imported(
    bundled: ModelFiles, tmp_path: Path
) -> None:
    """Three channels per norm x 200: a plain int8 recipe gives other labels, the import does not."""
    planted = OutlierWeights(bundled.weights)
    cases = builtin_cases(bundled.tokenizer, bundled.template)
    for name in ("plain", "imported"):
        (tmp_path / name).mkdir()
    plain = compile_weights(planted, tmp_path / "plain", cases=cases, is_smoothed=False).agreement
    imported = compile_weights(planted, tmp_path / "imported", cases=cases).agreement
    assert plain is not None
    assert imported is not None
    assert not plain.holds
    assert plain.mean_logprob_error > 0.1
    assert imported.holds
