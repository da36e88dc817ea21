"""Text ↔ ids: equal to Qwen's own tokenizer, and no text of a user ever becomes a control token."""

from __future__ import annotations

import json
import os
import random
import threading
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_files import CONTROL, MERGES, NUM_TOKENS, tokens, write_gguf, write_tokenizer_files

from allinone.errors import InvalidInput, TokenizerMismatch, WeightsNotFound
from allinone.models.gguf import read_gguf_header
from allinone.models.tokenizer import BpeTokenizer, Tokenizer

SHARED = Path(__file__).parents[3] / "shared"
HOSTILE = (
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_start|>system\n", "<|im_<|im_end|>end|>", "＜|im_end|＞",
    "<|im\u200b_end|>", "<|IM_END|>", "<think>", "</think>", "<tool_call>", "[PAD151646]", "<|eot_id|>", "<s>",
    "[INST]", "\x00", "\x7f", "\u202e", "e\u0301", "é", "ﬁ", "😶‍🌫️", "👨🏻‍❤️‍💋‍👨🏼", "\r\n", "  ", "\t", "你", "１",
    "'LL", "ſ",
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> BpeTokenizer:
    """266 ids: bytes, seven merges, three control tokens."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tokenizer_files(folder)
    return BpeTokenizer.load(folder)


@pytest.fixture(scope="module", params=["vocab.json", "gguf"])
def qwen(request: pytest.FixtureRequest) -> BpeTokenizer:
    """Qwen's real vocabulary, from both kinds of source."""
    files = (SHARED / "qwen-tokenizer", SHARED / "qwen2-vocab.gguf")
    if not all(file.exists() for file in files):
        message = f"Qwen's vocabulary is not in {SHARED}"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    if request.param == "vocab.json":
        return BpeTokenizer.load(files[0], vocab_size=151_936)
    return BpeTokenizer.from_gguf(read_gguf_header(files[1]).metadata, file=str(files[1]))


def test_qwen_vectors_all_pass(qwen: BpeTokenizer) -> None:
    """Text → ids made by others (llama.cpp, transformers.js): no space, digit or emoji is split another way."""
    vectors = json.loads((SHARED / "qwen-tokenizer" / "vectors.json").read_text(encoding="utf-8"))
    assert len(vectors) >= 71
    for vector in vectors:
        for control in (False, True):
            assert qwen.tokenize(vector["text"], control=control) == vector["ids"], vector["text"]


def test_qwen_control_tokens_have_their_ids(qwen: BpeTokenizer) -> None:
    """The three of ChatML, and the padded size of the models."""
    assert qwen.control_tokens == {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645}
    assert qwen.stop_ids == {151643, 151645}
    assert qwen.vocab_size == 151_936
    assert qwen.tokenize("<|im_start|>user\n你好<|im_end|>", control=True) == [151644, 872, 198, 108386, 151645]


def test_qwen_values_survive_and_stay_plain(qwen: BpeTokenizer) -> None:
    """3,000 mixtures of everything that could slip through."""
    generator = random.Random(0)
    for _ in range(3000):
        text = "".join(generator.choices(HOSTILE, k=generator.randint(1, 8)))
        ids = qwen.tokenize(text, control=False)
        assert qwen.detokenize(ids) == text
        assert not qwen.control_ids & set(ids)


@pytest.mark.real_model
def test_qwen_trusted_text_equals_transformers(qwen: BpeTokenizer) -> None:
    """The reference splits at control tokens and normalises to NFC; so do we, for the operator's text."""
    from transformers import Qwen2Tokenizer

    folder = SHARED / "qwen-tokenizer"
    merges = [tuple(line.split(" ")) for line in (folder / "merges.txt").read_text(encoding="utf-8").splitlines()]
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    reference = Qwen2Tokenizer(vocab=vocab, merges=[merge for merge in merges if len(merge) == 2])
    reference.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    texts = [
        "<|im_start|>user\ncafe\u0301<|im_end|>\n",
        "a<|im_end|><|im_end|> b",
        "<|im_start",
        "e\u0301<|im_end|>\u0301",
    ]
    for text in (*texts, *HOSTILE):
        assert qwen.tokenize(text, control=True) == reference.encode(text, add_special_tokens=False), text


def test_a_long_line_is_fast_enough_to_refuse(qwen: BpeTokenizer) -> None:
    """300 kB without a space, of one letter, of spaces: linear; a quadratic way would take many minutes."""
    for text in ("a" * 300_000, " " * 300_000 + "x", "你" * 100_000, "<|im_start|>" * 25_000, "\n " * 150_000):
        ids = qwen.tokenize(text, control=False)
        assert qwen.detokenize(ids) == text


@settings(max_examples=500, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(HOSTILE), st.text(max_size=20)), max_size=6).map("".join))
def test_values_keep_their_bytes_and_yield_no_control_id(text: str) -> None:
    """The invariant that everything else stands on, for any text there is."""
    tokenizer = _tiny()
    ids = tokenizer.tokenize(text, control=False)
    assert tokenizer.detokenize(ids) == text
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
    assert not tokenizer.control_ids & set(ids)


def test_values_are_not_normalised_but_trusted_text_is(tiny: BpeTokenizer) -> None:
    """A user's bytes are the user's; the operator's text is read as the model learnt to read it."""
    decomposed = "e\u0301"
    assert tiny.detokenize(tiny.tokenize(decomposed, control=False)) == decomposed
    assert tiny.detokenize(tiny.tokenize(decomposed, control=True)) == unicodedata.normalize("NFC", decomposed)


def test_control_tokens_are_read_in_trusted_text_only(tiny: BpeTokenizer) -> None:
    """Longest first, anywhere in the text; not in a value."""
    text = "hello<|im_end|><|im_start|> hello"
    ids = tiny.tokenize(text, control=True)
    assert ids == [*_ids("hello"), *_ids("<|im_end|>"), *_ids("<|im_start|>"), *_ids("Ġhello")]
    assert tiny.detokenize(ids) == "hello hello"
    assert len(tiny.tokenize(text, control=False)) > len(ids)


def test_tokenize_refuses_half_a_character(tiny: BpeTokenizer) -> None:
    """A lone surrogate is no text; the place is named."""
    for control in (False, True):
        with pytest.raises(InvalidInput, match=r"U\+D83D\) at position 3"):
            tiny.tokenize("abc\ud83d", control=control)


def test_detokenize_replaces_what_is_no_character(tiny: BpeTokenizer) -> None:
    """Half of 您 is U+FFFD, and complete again with the rest."""
    ids = tiny.tokenize("您", control=False)
    assert len(ids) > 1
    assert tiny.detokenize(ids[:-1]) == "\ufffd"
    assert tiny.detokenize(ids) == "您"


def test_tokenizers_fit_the_seam(tiny: BpeTokenizer) -> None:
    """What the engine is typed against."""
    assert isinstance(tiny, Tokenizer)


def test_tokenize_is_safe_across_threads(tiny: BpeTokenizer) -> None:
    """The server tokenises in many threads at once."""
    texts = [f"hello {number} 你好 <|im_end|>" * 20 for number in range(40)]
    expected = [tiny.tokenize(text, control=False) for text in texts]
    found: dict[int, list[list[int]]] = {}

    def work(number: int) -> None:
        found[number] = [tiny.tokenize(text, control=False) for text in texts]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[number] == expected for number in range(4))


def test_save_and_load_give_the_same_tokenizer(tiny: BpeTokenizer, tmp_path: Path) -> None:
    """The compiled folder holds a standard `tokenizer.json`: ours, and that of any other tool."""
    from tokenizers import Tokenizer as Reference

    tiny.save(tmp_path)
    loaded = BpeTokenizer.load(tmp_path)
    assert loaded.vocabulary == tiny.vocabulary
    assert loaded.vocab_size == tiny.vocab_size
    reference = Reference.from_file(str(tmp_path / "tokenizer.json"))
    text = "<|im_start|>hello cafe\u0301<|im_end|>"
    assert reference.encode(text, add_special_tokens=False).ids == tiny.tokenize(text, control=True)


def test_save_keeps_the_padded_size(tmp_path: Path) -> None:
    """A compiled model has as many rows as the model it came from."""
    write_tokenizer_files(tmp_path)
    BpeTokenizer.load(tmp_path, vocab_size=288).save(tmp_path)
    assert BpeTokenizer.load(tmp_path).vocab_size == 288


def test_load_reads_a_tokenizer_json(tiny: BpeTokenizer, tmp_path: Path) -> None:
    """Also one whose control tokens stand in the vocabulary too, as trainers write it; merges as pairs or as text."""
    document = json.loads(tiny.to_json())
    document["model"]["vocab"] |= dict(tiny.control_tokens)
    document["model"]["merges"] = [" ".join(merge) for merge in document["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    loaded = BpeTokenizer.load(tmp_path)
    assert loaded.vocabulary == tiny.vocabulary
    assert not loaded.control_ids & set(loaded.tokenize("".join(CONTROL), control=False))


def test_load_repairs_unflagged_control_tokens(tiny: BpeTokenizer, tmp_path: Path) -> None:
    """`<|im_start|>` as an ordinary token that no merge reaches: it is a control token, and it is reported."""
    document = json.loads(tiny.to_json())
    document["model"]["vocab"] |= dict(tiny.control_tokens)
    document["added_tokens"] = []
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    loaded = BpeTokenizer.load(tmp_path)
    assert loaded.vocabulary.repaired == tuple(sorted(CONTROL))
    assert loaded.control_tokens == tiny.control_tokens
    assert loaded.stop_ids == tiny.stop_ids


def test_load_shows_tokens_that_are_not_special(tiny: BpeTokenizer, tmp_path: Path) -> None:
    """`<think>` is one token in trusted text and never in a value; in an output it is shown, unlike `<|im_end|>`."""
    document = json.loads(tiny.to_json())
    flags = {"special": False, "lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    document["added_tokens"].append({"id": NUM_TOKENS, "content": "<think>", **flags})
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    loaded = BpeTokenizer.load(tmp_path)
    assert loaded.tokenize("<think>", control=True) == [NUM_TOKENS]
    assert NUM_TOKENS not in loaded.tokenize("<think>", control=False)
    assert loaded.detokenize([NUM_TOKENS, *loaded.tokenize("<|im_end|>", control=True)]) == "<think>"


def test_load_reads_end_tokens_from_generation_config(tiny: BpeTokenizer, tmp_path: Path) -> None:
    """Chat models list several ids that end a reply; one id alone is also allowed."""
    write_tokenizer_files(tmp_path)
    for value, expected in ((7, {7}), ([7, 8], {7, 8}), (None, set[int]())):
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
        assert BpeTokenizer.load(tmp_path).stop_ids == tiny.stop_ids | expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"type": "Unigram"}}, "'Unigram' is not supported"),
        ({"normalizer": {"type": "Lowercase"}}, "normaliser 'Lowercase' is not supported"),
        ({"pre_tokenizer": None}, "no pre-tokenizer"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "changes text"),
        (
            {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True, "trim_offsets": True}},
            "changes text",
        ),
        ({"pre_tokenizer": {"type": "Nonsense"}}, "inconsistent"),
        (
            {"added_tokens": [{"id": 263, "content": "<|im_end|>", "lstrip": True}]},
            "'<|im_end|>' has lstrip, which is not supported",
        ),
        ({"added_tokens": [{"id": 5, "content": "<|im_end|>"}]}, "shares its id 5"),
        (
            {"added_tokens": [{"id": 300, "content": "<|im_end|>"}, {"id": 301, "content": "<|im_end|>"}]},
            "two ids, 300 and 301",
        ),
        ({"added_tokens": []}, "no usable end token"),
        ({"added_tokens": [{"id": 263, "content": "hello"}, {"id": 300, "content": "<|im_end|>"}]}, "inconsistent"),
    ],
)
def test_load_refuses_what_it_would_have_to_guess(
    tiny: BpeTokenizer, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    """Other kinds of tokenizers, tokens that eat the text around them, contradictions."""
    (tmp_path / "tokenizer.json").write_text(json.dumps(json.loads(tiny.to_json()) | change))
    with pytest.raises(TokenizerMismatch) as caught:
        BpeTokenizer.load(tmp_path)
    assert message in str(caught.value)


def test_load_refuses_a_vocabulary_that_loses_bytes(tiny: BpeTokenizer, tmp_path: Path) -> None:
    """A missing byte would vanish from every text without a word."""
    document = json.loads(tiny.to_json())
    del document["model"]["vocab"]["!"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(TokenizerMismatch, match="lacks 1 of the 256 bytes"):
        BpeTokenizer.load(tmp_path)
    document = json.loads(tiny.to_json())
    document["model"]["vocab"]["你"] = 270
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(TokenizerMismatch, match="not byte-level"):
        BpeTokenizer.load(tmp_path)


def test_load_refuses_damaged_and_missing_files(tmp_path: Path) -> None:
    """The file is named."""
    with pytest.raises(WeightsNotFound, match="has no tokenizer"):
        BpeTokenizer.load(tmp_path)
    for content in ("{", "[]", "\udcff"):
        (tmp_path / "tokenizer.json").write_bytes(content.encode("utf-8", "surrogateescape"))
        with pytest.raises(TokenizerMismatch, match=r"tokenizer\.json is damaged"):
            BpeTokenizer.load(tmp_path)


def test_load_refuses_a_model_with_fewer_rows(tmp_path: Path) -> None:
    """Tokenizer and weights of different models."""
    write_tokenizer_files(tmp_path)
    with pytest.raises(TokenizerMismatch, match=f"{NUM_TOKENS} ids, the model only 100 rows"):
        BpeTokenizer.load(tmp_path, vocab_size=100)


def test_gguf_without_a_pre_tokenizer_is_qwen2(tmp_path: Path) -> None:
    """The official Qwen1.5 files were converted before llama.cpp began to name it."""
    write_gguf(tmp_path / "old.gguf", pre=None)
    tokenizer = BpeTokenizer.from_gguf(read_gguf_header(tmp_path / "old.gguf").metadata, file="old.gguf")
    assert tokenizer.tokenize("hello", control=False) == _ids("hello")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tokenizer.ggml.model", "llama", "tokenizer 'llama' is not supported"),
        ("tokenizer.ggml.tokens", [], "tokenizer 'gpt2' is not supported"),
        ("tokenizer.ggml.pre", "llama-bpe", "pre-tokenizer 'llama-bpe' is not supported. Supported: qwen2"),
        ("tokenizer.ggml.merges", None, "has no merges"),
        ("tokenizer.ggml.merges", ["a b c"], "'a b c' is not a merge of two tokens"),
        ("tokenizer.ggml.token_type", [1], "does not fit its"),
        ("tokenizer.ggml.eos_token_id", 5000, "no usable end token"),
    ],
)
def test_gguf_refuses_other_vocabularies(tmp_path: Path, key: str, value: object, message: str) -> None:
    """Each contradiction is named with the file."""
    write_gguf(tmp_path / "tiny.gguf")
    metadata = {**read_gguf_header(tmp_path / "tiny.gguf").metadata, key: value}
    with pytest.raises(TokenizerMismatch) as caught:
        BpeTokenizer.from_gguf(metadata, file="tiny.gguf")
    assert message in str(caught.value)
    assert "tiny.gguf" in str(caught.value)


def _ids(*spellings: str) -> list[int]:
    return [tokens().index(spelling) for spelling in spellings]


_CACHE: list[BpeTokenizer] = []


def _tiny() -> BpeTokenizer:
    """The tiny tokenizer without a fixture, which hypothesis would make anew for each example."""
    if not _CACHE:
        from allinone.models.vocabulary import QWEN2_PRE_TOKENIZER, Vocabulary

        spelled = {text: token_id for token_id, text in enumerate(tokens()) if text not in CONTROL}
        control = {text: tokens().index(text) for text in CONTROL}
        _CACHE.append(
            BpeTokenizer(
                Vocabulary(
                    file="a test",
                    tokens=spelled,
                    merges=list(MERGES),
                    control_tokens=control,
                    hidden=frozenset(CONTROL),
                    pre_tokenizer=QWEN2_PRE_TOKENIZER,
                    normalization="NFC",
                    stop_ids=frozenset(control.values()),
                    vocab_size=NUM_TOKENS,
                )
            )
        )
    return _CACHE[0]
