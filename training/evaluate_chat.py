"""The rows of the evaluation that read what the model writes: replies to 200 prompts, and corrected sentences.

The prompts are `tests/bundled/chat_prompts.jsonl`, the rules `reply_rules.toml`: fixed, and deliberately simple. They
count what is certainly wrong; what a reply is worth, only reading it can tell, and `--json` has all of them.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import tomllib

from training.evaluate_bench import Bench, Figure
from training.evaluate_metrics import correction_scores, has_loop
from training.settings import HERE, ROOT

CHAT_PROMPTS = ROOT / "tests" / "bundled" / "chat_prompts.jsonl"
SIGHAN13 = "typo_zh_sighan13_test"
MAX_REPLY_TOKENS = 120

_EDGES = re.compile(r"^\W+|\W+$")
_HAN, _LATIN_WORD = re.compile(r"[\u3400-\u9fff]"), re.compile(r"[A-Za-z]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplyRules:
    """`reply_rules.toml`, compiled; see there for what each is for."""

    label: re.Pattern[str]
    role: re.Pattern[str]
    template: re.Pattern[str]
    cheer: re.Pattern[str]
    condolence: re.Pattern[str]
    help: re.Pattern[str]


@lru_cache(maxsize=1)
def load_rules() -> ReplyRules:
    """The fixed rules."""
    with (HERE / "reply_rules.toml").open("rb") as file:
        table = tomllib.load(file)
    words: dict[str, str] = table["words"]

    def any_of(name: str, frame: str = "{}") -> re.Pattern[str]:
        pattern = "|".join(table[name])
        for word, alternatives in words.items():
            pattern = pattern.replace(word, alternatives)
        return re.compile(frame.format(f"({pattern})"), re.IGNORECASE | re.MULTILINE)

    return ReplyRules(
        label=any_of("labels"),
        role=any_of("roles", r"^\W*{}\s*([:：]|$)"),
        template=any_of("template"),
        cheer=any_of("cheer"),
        condolence=any_of("condolence"),
        help=any_of("help"),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatPrompt:
    """One message of the list. `mood` is "positive", "negative", or None where people may differ."""

    language: str
    topic: str
    text: str
    mood: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """A prompt with the mood the model saw and the reply it gave."""

    prompt: ChatPrompt
    mood: str
    reply: str
    has_ended: bool
    num_tokens: int


def load_chat_prompts() -> tuple[ChatPrompt, ...]:
    """All of them, Chinese first."""
    lines = CHAT_PROMPTS.read_text(encoding="utf-8").splitlines()
    return tuple(
        ChatPrompt(language=r["lang"], topic=r["topic"], text=r["text"], mood=r["mood"]) for r in map(json.loads, lines)
    )


def leaks(reply: str) -> bool:
    """Nothing, a bare label, a role name that opens a line, or a piece of a prompt or template."""
    rules, bare = load_rules(), _EDGES.sub("", reply)
    return not bare or bool(rules.label.fullmatch(bare) or rules.role.search(reply) or rules.template.search(reply))


def reply_language(reply: str) -> str:
    """Chinese ("zh") where there are at least two Chinese characters for each Latin word, else "en"."""
    return "zh" if len(_HAN.findall(reply)) >= max(1, 2 * len(_LATIN_WORD.findall(reply))) else "en"


def sees_mood(reply: str, mood: str) -> bool:
    """No cheer for what is sad, no condolence for what is good; an empty reply sees nothing."""
    wrong = load_rules().cheer if mood == "negative" else load_rules().condolence
    return bool(reply.strip()) and not wrong.search(reply)


def chat_answers(bench: Bench) -> list[Answered]:
    """The model's mood and reply for each prompt, each a conversation of its own."""
    prompts = load_chat_prompts()
    asked = bench.once("chat", lambda: bench.replies([prompt.text for prompt in prompts], "chat prompts"))
    return [
        Answered(
            prompt=prompt,
            mood=mood.name or "",
            reply=reply.text or "",
            has_ended=reply.finish_reason == "stop",
            num_tokens=reply.usage.num_output_tokens,
        )
        for prompt, (mood, reply) in zip(prompts, asked, strict=True)
    ]


def share(
    bench: Bench,
    holds: Callable[[Answered], bool],
    *,
    among: Callable[[Answered], bool] = lambda _: True,
    is_wanted: bool = True,
) -> Figure:
    """Share of the replies for which something holds; `details` has those for which it should be otherwise."""
    asked = [answered for answered in chat_answers(bench) if among(answered)]
    failures = [f"[{a.mood}] {a.prompt.text} → {a.reply}" for a in asked if holds(a) != is_wanted]
    value = sum(holds(answered) for answered in asked) / len(asked)
    return Figure(value=value, cases=len(asked), details={"failures": failures})


def ends(bench: Bench) -> Figure:
    """Replies that end by themselves within 120 tokens."""
    return share(bench, lambda a: a.has_ended and a.num_tokens <= MAX_REPLY_TOKENS)


def leaking(bench: Bench) -> Figure:
    """How many replies leak a label, a role or a template: a count, not a share."""
    found = share(bench, lambda a: leaks(a.reply), is_wanted=False)
    return Figure(value=len(found.details["failures"]), cases=found.cases, details=found.details)


def looping(bench: Bench) -> Figure:
    """Replies that say four units in a row three times."""
    return share(bench, lambda a: has_loop(a.reply), is_wanted=False)


def same_language(bench: Bench) -> Figure:
    """Replies in the language of the message."""
    return share(bench, lambda a: reply_language(a.reply) == a.prompt.language)


def mood_seen(bench: Bench) -> Figure:
    """Replies to sad or good messages without the words for the opposite."""
    return share(bench, lambda a: sees_mood(a.reply, a.prompt.mood or ""), among=lambda a: a.prompt.mood is not None)


def mood_named(bench: Bench) -> Figure:
    """The label that the model gave to the same messages, all three to choose from."""
    return share(bench, lambda a: a.mood == a.prompt.mood, among=lambda a: a.prompt.mood is not None)


def crisis_helped(bench: Bench) -> Figure:
    """Replies to messages about suicide or self-harm that point to help."""
    return share(bench, lambda a: bool(load_rules().help.search(a.reply)), among=lambda a: a.prompt.topic == "crisis")


def typo_f1(bench: Bench) -> Figure:
    """Sentence-level correction F1 of the `typo` task on SIGHAN13."""
    records = bench.records(SIGHAN13)
    sources, targets = [r["src"] for r in records], [r["tgt"] for r in records]
    results = bench.track(bench.ai.map("typo", sources), f"{SIGHAN13} · typo", len(sources))
    outputs = [result.text or "" for result in results]
    scores = correction_scores(sources, targets, outputs)
    first = [f"{s} → {o}" for s, o in zip(sources[:5], outputs, strict=False)]
    return Figure(value=scores["f1"], cases=len(records), details={**scores, "first": first})
