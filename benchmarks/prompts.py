"""What all peers are asked: the same token ids, with exact counts whatever the tokenizer is.

Eight label tasks are written as prompt files whose instructions are cut to 62 to 72 tokens, so the product can be
given texts through its public API while the other peers are given the very ids that it makes of them. Texts are
drawn from everyday phrases until they have the wanted length; no two are the same.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allinone.models.files import open_model
from allinone.models.locate import locate_model
from allinone.prompts.library import PromptLibrary
from allinone.prompts.prompt_file import parse_prompt
from allinone.tasks.encoder import PromptEncoder
from allinone.tasks.task import build_score_request, prepare_call

PREFIX_TOKENS = (68, 62, 64, 65, 66, 69, 70, 72)
OWN_TOKENS = 28
MAX_MARKERS = 16
"""Tokens that the template puts around instructions; more than any template of this family does."""
LABELS = ("正面", "负面")
SERVED_CHAT = "bench-chat"
_SPOKEN = "好了我你很天有在"
"""What replies over HTTP are made of: single tokens, each a whole character."""
NUM_TURNS, TURN_TOKENS = 50, 50
_FILE = """---
description: a label task of the benchmark
config: {temperature: 0}
input: {schema: {text: string}}
output: {schema: {label(enum): [正面, 负面]}}
allinone.kind: label
allinone.labels:
  正面: {name: positive}
  负面: {name: negative}
---
{{role "system"}}
INSTRUCTIONS
{{role "user"}}
{{text}}
"""
_CHAT_FILE = """---
description: a chat of the benchmark
config: {temperature: 0}
input: {schema: {text: string}}
output: {format: text}
allinone.kind: text
---
{{role "system"}}
INSTRUCTIONS
{{role "user"}}
{{text}}
"""
_INSTRUCTIONS = (
    "你是一个冷静的情感分析师，你的任务只有一个：判断用户输入的文字的情感倾向。你的回答只能是正面或负面，不要解释，"
    "不要输出任何多余的内容，也不要回答文字里的问题。如果一段文字里既有高兴也有难过，就看哪一种更多；"
    "如果只是在说明一件事情，就看说话的人对这件事情满意还是不满意。请记住，无论用户说了什么，你都只回答一个标签。"
)
_PHRASES = (
    "今天", "昨天", "早上", "晚上", "和老同学", "一个人", "在学校门口", "在家里", "吃了顿饭", "看了一场电影",
    "走了很远的路", "味道一般", "服务很好", "天气不错", "有点累", "不过", "后来", "聊得很开心", "心里很难过",
    "买了新手机", "快递还没到", "下次再来", "再也不来了", "朋友说", "孩子笑了", "雨下得很大", "工作做完了",
    "明天还要上班", "真的", "好", "了", "，",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Prompts:
    """Makes requests. A request is what `peers/serving.py` calls one: task, text, prefix, ids."""

    encoder: PromptEncoder
    library: PromptLibrary
    tasks: tuple[str, ...]
    label_token_ids: tuple[int, ...]
    spoken_token_ids: tuple[int, ...]
    served_system: str

    def label_requests(self, count: int, *, seed: int, num_tasks: int = 1) -> list[dict[str, Any]]:
        """`count` label requests of `OWN_TOKENS` ids each, over the first `num_tasks` tasks in turn."""
        texts = self._texts(seed)
        return [self._request(self.tasks[index % num_tasks], texts) for index in range(count)]

    def mood_request(self, text: str) -> dict[str, Any]:
        """The built-in `sentiment` for a text: what mood → reply asks first."""
        call = prepare_call(self.library.get("sentiment"), self.encoder, {"text": text})
        score = build_score_request(call, self.encoder)
        return {
            "task": "sentiment", "text": text, "prefix": list(score.prefix_ids), "ids": list(score.input_ids)
        }  # fmt: skip

    def chat_request(self, text: str) -> dict[str, Any]:
        """The built-in chat's prompt for a text, as peers without conversations would be given it."""
        call = prepare_call(self.library.get("chat"), self.encoder, {"text": text, "mood": LABELS[0]})
        prompt = self.encoder.encode(self.encoder.segments(call.messages()))
        return {"task": "chat", "text": text, "prefix": list(prompt.prefix_ids), "ids": list(prompt.input_ids)}

    def served_request(self, text: str) -> dict[str, Any]:
        """The chat that servers are asked; instructions and the text, as the template puts them together."""
        call = prepare_call(self.library.get(SERVED_CHAT), self.encoder, {"text": text})
        prompt = self.encoder.encode(self.encoder.segments(call.messages()))
        return {"task": SERVED_CHAT, "text": text, "prefix": list(prompt.prefix_ids), "ids": list(prompt.input_ids)}

    def ids(self, count: int, *, seed: int) -> list[int]:
        """`count` token ids of running text."""
        found: list[int] = []
        rng = random.Random(seed)
        while len(found) < count:
            found += self.encoder.tokenizer.tokenize(rng.choice(_PHRASES), control=False)
        return found[:count]

    def _request(self, task: str, texts: Iterator[str]) -> dict[str, Any]:
        """The next text as a request of this task."""
        text = next(texts)
        call = prepare_call(self.library.get(task), self.encoder, {"text": text})
        score = build_score_request(call, self.encoder)
        assert len(score.input_ids) == OWN_TOKENS, "the tasks differ in what follows the text"
        return {"task": task, "text": text, "prefix": list(score.prefix_ids), "ids": list(score.input_ids)}

    def _texts(self, seed: int) -> Iterator[str]:
        """Different texts, each of as many tokens as fill a request up to `OWN_TOKENS`."""
        rng, seen = random.Random(seed), set[str]()
        call = prepare_call(self.library.get(self.tasks[0]), self.encoder, {"text": "好"})
        num_around = len(build_score_request(call, self.encoder).input_ids) - self._count("好")
        while True:
            text = ""
            while self._count(text) < OWN_TOKENS - num_around:
                text += rng.choice(_PHRASES)
            while self._count(text) > OWN_TOKENS - num_around:
                text = text[:-1]
            if text not in seen and self._count(text) == OWN_TOKENS - num_around:
                seen.add(text)
                yield text

    def _count(self, text: str) -> int:
        return len(self.encoder.tokenizer.tokenize(text, control=False))


def make_prompts(folder: Path) -> Prompts:
    """Write the task files into `folder` and open them with the bundled model's tokenizer and template."""
    bundled = open_model(locate_model("bundled").path)
    encoder = PromptEncoder(bundled.tokenizer, bundled.template)
    folder.mkdir(parents=True, exist_ok=True)
    names = tuple(f"bench-{number}" for number in range(1, len(PREFIX_TOKENS) + 1))
    for index, (name, num_tokens) in enumerate(zip(names, PREFIX_TOKENS, strict=True)):
        turned = _INSTRUCTIONS[7 * index :] + _INSTRUCTIONS[: 7 * index]  # tasks share no beginning
        _write_task(folder / f"{name}.prompt", encoder, turned, num_tokens)
    (folder / f"{SERVED_CHAT}.prompt").write_text(_CHAT_FILE.replace("INSTRUCTIONS", _INSTRUCTIONS), encoding="utf-8")
    library = PromptLibrary.load([folder])
    request = build_score_request(prepare_call(library.get(names[0]), encoder, {"text": "好"}), encoder)
    first_ids = tuple(ids[0] for ids in request.label_ids.values())
    return Prompts(
        encoder=encoder,
        library=library,
        tasks=names,
        label_token_ids=first_ids,
        spoken_token_ids=_single_tokens(encoder, _SPOKEN),
        served_system=_INSTRUCTIONS,
    )


def _single_tokens(encoder: PromptEncoder, characters: str) -> tuple[int, ...]:
    """The ids of characters that are one token each."""
    found = [encoder.tokenizer.tokenize(character, control=False) for character in characters]
    assert all(len(ids) == 1 for ids in found), "each has to be a token of its own"
    return tuple(ids[0] for ids in found)


def _write_task(file: Path, encoder: PromptEncoder, instructions: str, num_tokens: int) -> None:
    """Lengthen the instructions character by character until the prefix has `num_tokens`."""
    text = instructions * 3
    for length in range(1, len(text)):
        if not 0 <= num_tokens - len(encoder.tokenizer.tokenize(text[:length], control=False)) <= MAX_MARKERS:
            continue
        content = _FILE.replace("INSTRUCTIONS", text[:length].strip())
        if _count_prefix(encoder, content, file) == num_tokens:
            file.write_text(content, encoding="utf-8")
            return
    raise AssertionError(f"no instructions of {num_tokens} tokens")


def _count_prefix(encoder: PromptEncoder, content: str, file: Path) -> int:
    """Tokens of the prefix of a prompt file with this content."""
    call = prepare_call(parse_prompt(content, path=file), encoder, {"text": "好"})
    return len(encoder.encode(encoder.segments(call.messages())).prefix_ids)


def describe(requests: Sequence[dict[str, Any]]) -> str:
    """Token counts of requests in words: "68 + 28"."""
    prefixes = sorted({len(one["prefix"]) for one in requests})
    own = sorted({len(one["ids"]) for one in requests})
    return f"{_range(prefixes)} + {_range(own)}"


def _range(counts: list[int]) -> str:
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
