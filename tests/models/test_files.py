"""`open_model`: every format and variant opens and gives back its numbers; everything else is refused in a sentence."""

from __future__ import annotations

import dataclasses
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_templates import QWEN1_5
from make_files import CONTROL, NUM_TOKENS, rounded, tiny_config, tokens, write_folder, write_gguf

from allinone.errors import AllInOneError, TokenizerMismatch, WeightsMismatch, WeightsNotFound
from allinone.models import files as files_module
from allinone.models.files import open_model
from allinone.models.gguf import read_gguf_header
from allinone.types import Message, Segment

VARIANTS = ("qwen2", "qwen2.5", "qwen3")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("num_shards", [1, 3])
def test_open_model_reads_a_safetensors_folder(tmp_path: Path, variant: str, num_shards: int) -> None:
    """Configuration, tensors, tokenizer and template all come out as they went in, sharded or not."""
    tensors = write_folder(tmp_path / "Tiny", variant, num_shards=num_shards)
    files = open_model(tmp_path / "Tiny")
    assert files.name == "Tiny"
    assert files.weights.config == tiny_config(variant)
    assert files.weights.stored_dtype == "bf16"
    assert set(files.weights.tensor_names()) == set(tensors)
    for name, values in tensors.items():
        np.testing.assert_array_equal(files.weights.load(name), rounded(values, "BF16"))
    assert files.tokenizer.vocab_size == 288
    assert files.template.source == QWEN1_5


@pytest.mark.parametrize("variant", VARIANTS)
def test_open_model_reads_a_gguf(tmp_path: Path, variant: str) -> None:
    """The same from a GGUF in full precision: bit for bit, names and shapes mapped, q and k not permuted."""
    tensors = write_gguf(tmp_path / "tiny.gguf", variant, quantization="F32")
    files = open_model(tmp_path / "tiny.gguf")
    assert (files.name, files.licence) == ("Tiny-Chat", "apache-2.0")
    config = files.weights.config
    assert config.rms_norm_eps == pytest.approx(1e-6)
    assert config == type(config)(
        **{
            **{field: getattr(tiny_config(variant), field) for field in config.__dataclass_fields__},
            "rms_norm_eps": config.rms_norm_eps,
        }
    )
    assert set(files.weights.tensor_names()) == set(tensors)
    for name, values in tensors.items():
        np.testing.assert_array_equal(files.weights.load(name), values)


def test_both_formats_of_a_model_agree(tmp_path: Path) -> None:
    """The tokenizer gives the same ids, and the template the same segments, whichever file a user has."""
    write_folder(tmp_path / "Tiny-Chat")
    write_gguf(tmp_path / "tiny.gguf")
    folder, gguf = open_model(tmp_path / "Tiny-Chat"), open_model(tmp_path / "tiny.gguf")
    for text in ("hello 你好 <|im_start|>", "<|im_end|>\n"):
        for control in (False, True):
            assert folder.tokenizer.tokenize(text, control=control) == gguf.tokenizer.tokenize(text, control=control)
    messages = [Message(role="user", content=(Segment(text="x", trusted=False),))]
    assert folder.template.render(messages) == gguf.template.render(messages)
    assert folder.tokenizer.stop_ids == gguf.tokenizer.stop_ids
    assert folder.tokenizer.vocab_size == gguf.tokenizer.vocab_size == 288


def test_padding_rows_have_no_bytes(tmp_path: Path) -> None:
    """Models have more rows than tokens (151,936 against 151,646): such an id is never text, and never an error."""
    write_gguf(tmp_path / "tiny.gguf")
    tokenizer = open_model(tmp_path / "tiny.gguf").tokenizer
    assert [tokenizer.token_bytes(token_id) for token_id in range(NUM_TOKENS, 288)] == [b""] * (288 - NUM_TOKENS)
    assert tokenizer.tokenize(f"[PAD{NUM_TOKENS}]", control=True) == tokenizer.tokenize(
        f"[PAD{NUM_TOKENS}]", control=False
    )
    with pytest.raises(IndexError):
        tokenizer.token_bytes(288)


@pytest.mark.parametrize("name", ["missing", "missing.gguf"])
def test_open_model_refuses_what_is_not_there(tmp_path: Path, name: str) -> None:
    """The path is named as the user gave it."""
    with pytest.raises(WeightsNotFound, match=name):
        open_model(tmp_path / name)


def test_open_model_refuses_an_empty_folder(tmp_path: Path) -> None:
    """Says which files make a model folder."""
    with pytest.raises(WeightsNotFound, match=r"no config\.json"):
        open_model(tmp_path)


def test_open_model_names_missing_weights_and_shards(tmp_path: Path) -> None:
    """A half-copied folder is recognised before anything is read."""
    write_folder(tmp_path, num_shards=3)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(WeightsNotFound, match=r"1 of 3 weight files: model-00002-of-00003\.safetensors"):
        open_model(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(WeightsNotFound, match="converted to safetensors"):
        open_model(tmp_path)


def test_open_model_refuses_other_architectures(tmp_path: Path) -> None:
    """Mixtures of experts and foreign families are named, with what would work."""
    write_gguf(tmp_path / "moe.gguf", architecture="qwen2moe")
    with pytest.raises(WeightsMismatch, match=r"'qwen2moe', which is not supported\. Supported: qwen2 \(Qwen1\.5"):
        open_model(tmp_path / "moe.gguf")
    write_folder(tmp_path / "llama")
    _edit_config(tmp_path / "llama", model_type="llama")
    with pytest.raises(WeightsMismatch, match="'llama', which is not supported"):
        open_model(tmp_path / "llama")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised with 'gptq'"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rotary scaling 'yarn'"),
        ({"use_sliding_window": True}, "use_sliding_window True"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"num_attention_heads": 3}, "num_heads 3 is not a multiple of num_kv_heads 4"),
        ({"num_hidden_layers": 2}, r"no tensor 'model\.layers\.1\.input_layernorm\.weight'"),
        ({"num_hidden_layers": 0}, "num_layers is 0"),
        ({"hidden_size": "256"}, "hidden_size is '256', a whole number is needed"),
        ({"vocab_size": 300}, r"has shape \(288, 256\), the configuration asks for \(300, 256\)"),
    ],
)
def test_open_model_refuses_options_it_would_compute_wrongly(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    """Ignoring any of these would give wrong answers without a word."""
    write_folder(tmp_path)
    _edit_config(tmp_path, **change)
    with pytest.raises(WeightsMismatch, match=message):
        open_model(tmp_path)


def test_open_model_reads_the_newer_rope_parameters(tmp_path: Path) -> None:
    """Newer releases of transformers nest the rotary base."""
    write_folder(tmp_path)
    _edit_config(tmp_path, rope_theta=None, rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    assert open_model(tmp_path).weights.config.rope_theta == 5e5


def test_open_model_refuses_tensors_nobody_would_use(tmp_path: Path) -> None:
    """A Qwen3 file with q/k biases is another computation, not one with spare parts."""
    write_folder(tmp_path, "qwen2")
    _edit_config(tmp_path, model_type="qwen3", head_dim=64)
    with pytest.raises(WeightsMismatch, match=r"q_norm\.weight"):
        open_model(tmp_path)


def test_open_model_ignores_a_stored_copy_of_a_tied_head(tmp_path: Path) -> None:
    """Some exporters write `lm_head.weight` although it is tied; the configuration decides, as in transformers."""
    write_folder(tmp_path, "qwen2.5")
    _edit_config(tmp_path, tie_word_embeddings=True)
    assert open_model(tmp_path).weights.config.tie_word_embeddings


@pytest.mark.parametrize("keep", [0, 10, 100, 3000, -1])
def test_open_model_refuses_a_truncated_gguf(tmp_path: Path, keep: int) -> None:
    """Wherever it was cut: in the magic, the counts, the vocabulary, the last tensor."""
    file = tmp_path / "tiny.gguf"
    write_gguf(file)
    data = file.read_bytes()
    file.write_bytes(data[:keep])
    with pytest.raises(WeightsMismatch) as caught:
        open_model(file)
    assert "tiny.gguf" in str(caught.value)
    assert f"{len(data[:keep]):,}" in str(caught.value)
    if keep > 24:
        assert "truncated" in str(caught.value)


def test_open_model_names_both_sizes_of_a_truncated_gguf(tmp_path: Path) -> None:
    """Expected and actual size, so that a user sees how much is missing."""
    file = tmp_path / "tiny.gguf"
    write_gguf(file, quantization="F32")
    whole = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(WeightsMismatch, match=f"has {whole - 1000:,}"):
        open_model(file)


def test_open_model_refuses_damaged_gguf_headers(tmp_path: Path) -> None:
    """Any byte of the header may be wrong: an error of ours, never a crash or a huge allocation."""
    file = tmp_path / "tiny.gguf"
    write_gguf(file)
    data = bytearray(file.read_bytes())
    generator = np.random.default_rng(0)
    outcomes = {"opened": 0, "refused": 0}
    for _ in range(150):
        damaged = bytearray(data)
        for position in generator.integers(0, 1500, size=3):
            damaged[position] = generator.integers(0, 256)
        file.write_bytes(damaged)
        try:
            open_model(file)
        except (WeightsMismatch, TokenizerMismatch):
            outcomes["refused"] += 1
        else:
            outcomes["opened"] += 1
    assert outcomes["refused"] > 50, outcomes


def test_open_model_refuses_a_truncated_safetensors(tmp_path: Path) -> None:
    """Cut in the header, or in the tensors: file, expected and actual size."""
    write_folder(tmp_path)
    file = tmp_path / "model.safetensors"
    data = file.read_bytes()
    for keep, message in (
        (4, "not a safetensors file"),
        (50, "truncated"),
        (len(data) - 1, f"need {len(data):,} bytes"),
    ):
        file.write_bytes(data[:keep])
        with pytest.raises(WeightsMismatch, match=message) as caught:
            open_model(tmp_path)
        assert "model.safetensors" in str(caught.value)
    file.write_bytes(b"\x10\0\0\0\0\0\0\0" + b"{not json at all" + data)
    with pytest.raises(WeightsMismatch, match="damaged"):
        open_model(tmp_path)


def test_load_refuses_a_file_that_shrank_after_it_was_opened(tmp_path: Path) -> None:
    """A plain read sees the end of the file; a mapped one would kill the process."""
    write_folder(tmp_path / "folder")
    write_gguf(tmp_path / "tiny.gguf")
    for path, file in (
        (tmp_path / "folder", tmp_path / "folder" / "model.safetensors"),
        (tmp_path / "tiny.gguf", tmp_path / "tiny.gguf"),
    ):
        weights = open_model(path).weights
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(WeightsMismatch, match=r"tensor 'model\.norm\.weight' has"):
            weights.load("model.norm.weight")
        with pytest.raises(WeightsMismatch, match="no tensor 'nothing'"):
            weights.load("nothing")


def test_open_model_refuses_foreign_files(tmp_path: Path) -> None:
    """A text file, a split GGUF and a vocabulary without weights are told apart."""
    (tmp_path / "notes.gguf").write_text("these are not the weights you are looking for")
    with pytest.raises(WeightsMismatch, match="not a GGUF file: it starts with b'thes'"):
        open_model(tmp_path / "notes.gguf")
    write_gguf(tmp_path / "part.gguf", metadata={"split.count": 3})
    with pytest.raises(WeightsMismatch, match="one part of 3"):
        open_model(tmp_path / "part.gguf")
    write_gguf(tmp_path / "yarn.gguf", metadata={"qwen2.rope.scaling.type": "yarn"})
    with pytest.raises(WeightsMismatch, match="rotary scaling 'yarn'"):
        open_model(tmp_path / "yarn.gguf")


def test_fingerprint_changes_with_the_content_only(tmp_path: Path) -> None:
    """It names compiled models: equal content, equal name."""
    write_gguf(tmp_path / "a.gguf")
    write_gguf(tmp_path / "b.gguf")
    write_gguf(tmp_path / "c.gguf", seed=1)
    a, b, c = (open_model(tmp_path / name).weights for name in ("a.gguf", "b.gguf", "c.gguf"))
    assert a.fingerprint() == b.fingerprint()
    assert a.fingerprint() != c.fingerprint()
    write_folder(tmp_path / "folder")
    before = open_model(tmp_path / "folder").weights.fingerprint()
    _edit_config(tmp_path / "folder", rope_theta=1e4)
    assert open_model(tmp_path / "folder").weights.fingerprint() != before


def test_open_model_repairs_unflagged_control_tokens(tmp_path: Path) -> None:
    """Regression of the field: such files silently spelled `<|im_start|>` out as ordinary text."""
    write_gguf(tmp_path / "tiny.gguf", token_types=[1, 1, 1])
    tokenizer = open_model(tmp_path / "tiny.gguf").tokenizer
    assert sorted(CONTROL) == sorted(tokenizer.vocabulary.repaired)  # type: ignore[attr-defined]
    assert tokenizer.tokenize("<|im_start|>", control=True) == [tokens().index("<|im_start|>")]
    assert not tokenizer.control_ids & set(tokenizer.tokenize("<|im_start|>", control=False))


def test_open_model_refuses_a_template_the_tokenizer_cannot_write(tmp_path: Path) -> None:
    """Template and tokenizer of different models: the turns would be read letter by letter."""
    write_gguf(tmp_path / "tiny.gguf", template=QWEN1_5.replace("<|im_start|>", "<|start_header|>"))
    with pytest.raises(TokenizerMismatch, match=r"writes <\|start_header\|>"):
        open_model(tmp_path / "tiny.gguf")


def test_open_model_refuses_more_tokens_than_rows(tmp_path: Path) -> None:
    """The tokenizer of a larger model next to the weights of a smaller one."""
    write_folder(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    config = json.loads(file.read_text())
    flags = config["added_tokens_decoder"][str(NUM_TOKENS - 1)]
    config["added_tokens_decoder"]["5000"] = {**flags, "content": "<|far|>"}
    file.write_text(json.dumps(config))
    with pytest.raises(TokenizerMismatch, match="5,001 ids, the model only 288 rows"):
        open_model(tmp_path)


def test_open_model_renders_base_models_as_plain_text(tmp_path: Path) -> None:
    """No template, or a base model of the catalog, whose repository carries a template it was never trained on."""
    write_folder(tmp_path / "Tiny", template=None)
    write_folder(tmp_path / "Qwen1.5-0.5B")
    write_folder(tmp_path / "Qwen1.5-0.5B-Chat")
    assert open_model(tmp_path / "Tiny").template.is_plain
    assert open_model(tmp_path / "Qwen1.5-0.5B").template.is_plain
    assert not open_model(tmp_path / "Qwen1.5-0.5B-Chat").template.is_plain
    assert "RESEARCH" in (open_model(tmp_path / "Qwen1.5-0.5B-Chat").licence or "")


def test_open_model_knows_a_pulled_gguf_by_its_folder(tmp_path: Path) -> None:
    """The names inside published GGUF files differ from the repository's, and few state the licence."""
    folder = tmp_path / "Qwen1.5-0.5B-Chat-GGUF"
    folder.mkdir()
    write_gguf(folder / "qwen1_5-0_5b-chat-q8_0.gguf")
    assert "RESEARCH" in (open_model(folder / "qwen1_5-0_5b-chat-q8_0.gguf").licence or "")


def test_open_model_refuses_wrong_values_in_every_json_file(tmp_path: Path) -> None:
    """Regression: a wrong type in tokenizer_config.json or vocab.json ended in a TypeError, not in a sentence."""
    write_folder(tmp_path)
    generator = random.Random(0)
    outcomes: Counter[str] = Counter()
    for file in sorted(tmp_path.glob("*.json")) * 60:
        good = file.read_bytes()
        file.write_text(json.dumps(_with_a_wrong_value(json.loads(good), generator)))
        try:
            open_model(tmp_path)
        except AllInOneError as error:
            assert str(tmp_path) in str(error)
            outcomes["refused"] += 1
        else:
            outcomes["opened"] += 1
        file.write_bytes(good)
    assert outcomes["refused"] > 50 and outcomes["opened"] > 10, outcomes


@pytest.mark.parametrize("name", ["merges.txt", "chat_template.jinja"])
def test_open_model_refuses_text_files_that_are_not_utf_8(tmp_path: Path, name: str) -> None:
    """Regression: a damaged byte ended in a UnicodeDecodeError."""
    write_folder(tmp_path)
    (tmp_path / name).write_bytes(b"\xf8 damaged \xff")
    with pytest.raises(TokenizerMismatch, match=name):
        open_model(tmp_path)


@pytest.mark.parametrize("value", [True, -1, 1.5, "", [], ["a"], 10**18])
def test_open_model_refuses_wrong_values_in_gguf_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: object
) -> None:
    """The same for a GGUF: whatever type a value has, the outcome is a model or an error of ours."""
    write_gguf(tmp_path / "tiny.gguf")
    header = read_gguf_header(tmp_path / "tiny.gguf")
    num_refused = 0
    for key in header.metadata:
        damaged = dataclasses.replace(header, metadata={**header.metadata, key: value})
        monkeypatch.setattr(files_module, "read_gguf_header", lambda path, damaged=damaged: damaged)
        try:
            open_model(tmp_path / "tiny.gguf")
        except AllInOneError:
            num_refused += 1
    assert num_refused > len(header.metadata) // 3


def _with_a_wrong_value(document: dict[str, Any], generator: random.Random) -> object:
    """The document with one value somewhere in it replaced by one of another kind."""
    places: list[tuple[Any, Any]] = []

    def collect(node: Any) -> None:
        for key in list(node)[:40] if isinstance(node, dict) else range(min(len(node), 5)):
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                collect(node[key])

    collect(document)
    node, key = generator.choice(places)
    node[key] = generator.choice([None, True, -1, 1.5, "x", [], {}, [1], ["a"], {"a": 1}, 10**30])
    return document


def _edit_config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
