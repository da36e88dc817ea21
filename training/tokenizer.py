"""The byte-level BPE of the bundled model: training, loading, and the two ways of tokenising.

Text of the operator (`control=True`) may contain control tokens, text of a user never does: the same rule as in the
product. Pre-tokenizer and byte alphabet are Qwen2's, there is no Unicode normaliser, so a GGUF reader that knows
`tokenizer.ggml.pre = "qwen2"` reproduces it from vocabulary and merges alone.
"""

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from training.lexicon import load_words
from training.settings import load_settings
from training.smalltalk import sample_texts
from training.sources import load_train, plain_texts, require_data, t0_reviews

CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LABEL_WORDS = (
    *("正面", "负面", "中性", "积极", "消极", "中立", "好评", "差评", "快乐", "高兴", "开心", "悲伤", "难过", "伤心"),
    *("愤怒", "生气", "恐惧", "害怕", "惊讶", "平静", "厌恶", "喜欢", "查订单", "退款", "投诉", "咨询", "预约", "闲聊"),
    *("情感", "情绪", "标签", "关键词", "标题", "摘要", "翻译", "是", "否", "有", "无", "好", "坏"),
)
LATIN_LABEL_WORDS = (
    *("positive", "negative", "neutral", "happy", "sad", "angry", "fear", "surprise", "joy", "anger", "sadness"),
    *("disgust", "love", "good", "bad", "yes", "no", "order", "refund", "complaint", "question", "booking", "chat"),
    *("keywords", "title", "summary", "true", "false"),
)


def build(model: models.BPE) -> Tokenizer:
    """A tokenizer with Qwen2's pre-tokenizer around a BPE model; no normaliser, no control tokens yet."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def label_lines(repeats: int) -> Iterator[str]:
    """The label words so often that BPE merges each of them into one token."""
    for word in LABEL_WORDS:
        yield f"{word}\n" * repeats
    for word in LATIN_LABEL_WORDS:
        for form in (word, word.capitalize(), f" {word}", f" {word.capitalize()}"):
            yield f"{form}\n" * repeats


def train(data: Path, vocab_size: int, seed: int = 0, scale: float = 1.0) -> Tokenizer:
    """Trains the BPE on a sample of the corpus; the control tokens take the last ids.

    Args:
        data: the data folder.
        vocab_size: control tokens included.
        seed: of the sample.
        scale: share of the running text, for a tokenizer in a hurry.
    """
    tokenizer = build(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(CONTROL_TOKENS),
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        max_token_length=15,  # bytes: five Chinese characters, so that no repeated sentence becomes a token
    )

    def lines() -> Iterator[str]:
        yield from label_lines(20_000)
        yield from sample_texts(random.Random(seed), 5_000)
        for word in load_words()["en_positive"] + load_words()["en_negative"]:
            yield f" {word}\n" * 400
        yield from plain_texts(data, random.Random(seed), scale)
        for text in [r["text"] for r in load_train(data, "en_sst2")] + [text for text, _ in t0_reviews(data)]:
            yield f"{text}\n" * 3

    tokenizer.train_from_iterator(lines(), trainer)
    return with_control_tokens(tokenizer)


def with_control_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """Adds the control tokens behind the vocabulary."""
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in CONTROL_TOKENS])
    return tokenizer


class Codec:
    """Text to ids, in the two ways of the product, and back."""

    def __init__(self, vocab: dict[str, int], merges: list[str]) -> None:
        """From ordinary tokens and merges ("a b"); the control tokens take the ids after them."""
        self.vocab, self.merges = vocab, merges
        pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
        self.plain = build(models.BPE(vocab=vocab, merges=pairs))
        self.control = with_control_tokens(build(models.BPE(vocab=vocab, merges=pairs)))
        self.im_end = self.control.token_to_id("<|im_end|>")
        self.end_of_text = self.control.token_to_id("<|endoftext|>")

    @classmethod
    def load(cls, path: Path) -> "Codec":
        """From a `tokenizer.json`."""
        model = json.loads(path.read_text(encoding="utf-8"))["model"]
        return cls(model["vocab"], [m if isinstance(m, str) else " ".join(m) for m in model["merges"]])

    @classmethod
    def from_gguf(cls, path: Path) -> "Codec":
        """From the vocabulary of a GGUF."""
        fields = gguf.GGUFReader(path).fields
        tokens: list[str] = fields["tokenizer.ggml.tokens"].contents()
        ordinary = tokens[: len(tokens) - len(CONTROL_TOKENS)]
        return cls({token: i for i, token in enumerate(ordinary)}, fields["tokenizer.ggml.merges"].contents())

    def encode(self, text: str, *, control: bool) -> list[int]:
        """Ids of one segment; with control=False a text that looks like `<|im_start|>` stays plain text."""
        tokenizer = self.control if control else self.plain
        return tokenizer.encode(text, add_special_tokens=False).ids

    def encode_with_spans(self, text: str, *, control: bool) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of one segment, and the (start, end) of each token in characters."""
        encoded = (self.control if control else self.plain).encode(text, add_special_tokens=False)
        return encoded.ids, encoded.offsets

    def decode(self, ids: list[int]) -> str:
        """Text of ids, control tokens left out."""
        return self.control.decode(ids, skip_special_tokens=True)


def read_vocabulary(path: Path, size: int) -> Tokenizer:
    """The tokenizer of a GGUF.

    Raises:
        SystemExit: it is not there, or has not `size` tokens.
    """
    if not path.exists():
        raise SystemExit(f"'{path}' (config.toml) is not there: make it first, or name another GGUF.")
    tokenizer = Codec.from_gguf(path).control
    if tokenizer.get_vocab_size() != size:
        raise SystemExit(f"'{path}' has {tokenizer.get_vocab_size()} tokens, the profile {size}.")
    return tokenizer


def main() -> None:
    """Trains the tokenizer of a profile and saves `tokenizer.json` in its run folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="cpu")
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    settings = load_settings(args.profile)
    target = settings.run / "tokenizer.json"
    if target.exists():
        print(f"{target} is there already")
        return
    known = settings.init or settings.vocabulary
    if known:  # weights that training starts from know their own tokens only
        tokenizer = read_vocabulary(known, settings.model.vocab_size)
    else:
        data, scale = require_data(args.data), min(1.0, 4 * settings.schedule.corpus_scale)
        tokenizer = train(data, settings.model.vocab_size, scale=scale)
    settings.run.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(target))
    codec = Codec.load(target)
    words = LABEL_WORDS + LATIN_LABEL_WORDS
    split = [w for w in words if len(codec.encode(w, control=False)) != 1]
    print(f"vocabulary {tokenizer.get_vocab_size()}; label words that are not one token: {split or 'none'}")


if __name__ == "__main__":
    main()
