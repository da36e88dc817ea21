"""Which backend a model gets: by name, by what was remembered, by default; and what is said when it cannot be."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from allinone.backends.choice import BackendChoice, find_choice, forget_choice, remember_choice
from allinone.cli.options import BACKENDS as CLI_BACKENDS
from allinone.errors import ConfigError, ModelError, StoreError, WeightsMismatch
from allinone.loading import BACKENDS, load_model
from allinone.models.files import open_gguf_text
from allinone.models.locate import ModelLocation, locate_model
from allinone.models.random_weights import RandomWeights
from conftest import tiny_config
from gguf_files import write_gguf


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No choice of another test counts."""
    monkeypatch.setenv("ALLINONE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def tiny(tiny_weights: RandomWeights, tmp_path: Path) -> ModelLocation:
    """A tiny GGUF."""
    return locate_model(write_gguf(tiny_weights, tmp_path / "tiny.gguf"))


def choice(location: ModelLocation, **changes: Any) -> BackendChoice:
    """FP32 on onnx, for a located model."""
    fields: dict[str, Any] = {"backend": "onnx", "weights": "float32", "path": location.path}
    return BackendChoice(**(fields | {"cache_key": location.cache_key} | changes))


def test_command_line_knows_every_backend() -> None:
    """It keeps a list of its own, because it must not load what runs models."""
    assert CLI_BACKENDS == BACKENDS


def test_llamacpp_needs_a_gguf(tmp_path: Path) -> None:
    """A folder is refused before the library is even looked for."""
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"runs GGUF files; .* is a safetensors folder") as caught:
        load_model(tmp_path, backend="llamacpp")
    assert caught.value.hint is not None and ".gguf" in caught.value.hint


@pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is not None, reason="llama-cpp-python is installed")
def test_llamacpp_that_is_not_installed_names_the_command(tiny: ModelLocation) -> None:
    """As on every machine before `make llamacpp`."""
    with pytest.raises(ModelError, match="not installed") as caught:
        load_model(tiny.path, backend="llamacpp")
    assert caught.value.hint is not None and "make llamacpp" in caught.value.hint


@pytest.mark.parametrize("option", [{"quantization": "float32"}, {"dtype": "bfloat16"}, {"compile": True}])
def test_options_of_other_backends_are_refused_by_llamacpp(tiny: ModelLocation, option: dict[str, Any]) -> None:
    """Its weights are as the file has them."""
    with pytest.raises(ConfigError, match="'llamacpp' has no"):
        load_model(tiny.path, backend="llamacpp", **option)


def test_text_of_a_gguf_needs_no_supported_architecture(tiny_weights: RandomWeights, tmp_path: Path) -> None:
    """llama.cpp runs what our graph cannot; tokenizer and template are read all the same."""
    file = write_gguf(tiny_weights, tmp_path / "other.gguf", architecture="gemma3")
    text = open_gguf_text(file)
    assert (text.name, text.stored_dtype) == ("random", "f32")
    assert text.tokenizer.detokenize(text.tokenizer.tokenize("hello 你好", control=False)) == "hello 你好"
    with pytest.raises(WeightsMismatch, match="gemma3"):
        load_model(file)


def test_without_a_choice_onnx_int8_runs(tiny: ModelLocation) -> None:
    """The default, as before there was anything to choose."""
    model = load_model(tiny.path, num_threads=1)
    assert (model.backend.info.name, model.quantization) == ("onnx", "int8")
    model.backend.close()


def test_a_remembered_choice_is_followed_and_can_be_overruled(tiny: ModelLocation) -> None:
    """Only where nothing was asked for: a named backend, or an option that belongs to one, comes first."""
    remember_choice(tiny, choice(tiny))
    for options, expected in (({}, "float32"), ({"backend": "onnx"}, "int8"), ({"quantization": "float32"}, "float32")):
        model = load_model(tiny.path, num_threads=1, **options)
        assert (model.backend.info.name, model.quantization) == ("onnx", expected), options
        model.backend.close()
    assert forget_choice(tiny) and not forget_choice(tiny)
    assert find_choice(tiny) is None


def test_a_choice_of_another_file_loads_that_file(tiny: ModelLocation, tmp_path: Path) -> None:
    """Another quantisation of the same model may be the faster one."""
    other = locate_model(write_gguf(RandomWeights(tiny_config(), seed=1, name="other"), tmp_path / "other.gguf"))
    remember_choice(tiny, choice(other))
    model = load_model(tiny.path, num_threads=1)
    assert model.name == "other"
    model.backend.close()


def test_choices_for_changed_or_missing_files_count_as_none(tiny: ModelLocation, tmp_path: Path) -> None:
    """What was measured is not there any more."""
    remember_choice(tiny, choice(tiny, cache_key="tiny-another-state"))
    assert find_choice(tiny) is None
    remember_choice(tiny, choice(tiny, path=tmp_path / "gone.gguf"))
    assert find_choice(tiny) is None


def test_damaged_choice_is_named_and_not_ignored(tiny: ModelLocation) -> None:
    """A silent fallback would be slow, and nobody would know why."""
    file = remember_choice(tiny, choice(tiny))
    file.write_text('{"backend": "abacus"}')
    with pytest.raises(StoreError, match=file.name) as caught:
        load_model(tiny.path)
    assert caught.value.hint is not None and "models tune" in caught.value.hint


@pytest.mark.llamacpp
def test_llamacpp_loads_names_and_text_of_the_file(tiny: ModelLocation) -> None:
    """Named by what the file says; its own tokenizer, not llama.cpp's."""
    model = load_model(tiny.path, backend="llamacpp", num_threads=1)
    assert (model.full_name, model.backend.info.name, model.backend.info.num_threads) == ("random/f32", "llamacpp", 1)
    assert model.tokenizer.vocab_size == model.backend.info.vocab_size
    model.backend.close()


@pytest.mark.llamacpp
def test_bundled_model_says_the_same_on_llamacpp() -> None:
    """The whole way, prompts and labels and a reply: near the probabilities of FP32 on onnx."""
    from allinone import AllInOne

    texts = ["今天的实验终于成功了，太棒了！", "The room was dirty and the staff was rude."]
    found: list[list[Any]] = []
    for options in ({"backend": "llamacpp"}, {"backend": "onnx", "quantization": "float32"}):
        with AllInOne.load("bundled", threads=1, **options) as ai:
            found.append(list(ai.map("sentiment", texts)))
            assert ai.run("chat", "你好").text
    for one, other in zip(*found, strict=True):
        assert one.label == other.label
        assert one.probs == pytest.approx(other.probs, abs=0.05)
