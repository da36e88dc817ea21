"""Examples of chat and empathy: small talk from the grammar, filtered dialogues, mood hints, several turns."""

import random
import re
from collections.abc import Iterator
from pathlib import Path

from training.prompts import ANSWER, INPUT, Message, Part, Prompt
from training.smalltalk import MOOD_EN, Turn, sample_turn
from training.sources import clean, is_chinese, split_sentences
from training.trainable import load_trainable
from training.wordings import text_wording

Parts = list[Part]
BANNED = re.compile(
    r"求助者|来信|自杀|自残|轻生|割腕|药|剂量|抑郁症|确诊|咨询师|老师，|我是.{0,6}(?:老师|医生|咨询)|题主|楼主|谢邀|邀请|提问|描述|来访|专家|公众号|微信|QQ|"
    r"性侵|强奸|http|网友|帖子|平台|热线|留言|1\.|①|\*|#|suicide|kill|medication|http",
    re.IGNORECASE,
)
NEGATIVE_HINT = re.compile(
    r"难过|伤心|痛苦|焦虑|压力|害怕|生气|吵架|烦|累|哭|失眠|孤独|迷茫|自卑|不开心|讨厌|sad|angry|afraid|tired|hate|worried"
)
POSITIVE_HINT = re.compile(r"开心|高兴|喜欢|太好|成功|谢谢|感谢|幸福|棒|love|great|happy|thank|glad|fun", re.IGNORECASE)


def reply_parts(text: str) -> Parts:
    """The assistant's answer and the end of its turn."""
    return [Part(text, False, ANSWER), Part("<|im_end|>", True, ANSWER)]


def guess_mood(text: str) -> str:
    """正面, 负面 or 中性 from a few words; good enough for a hint."""
    return "负面" if NEGATIVE_HINT.search(text) else "正面" if POSITIVE_HINT.search(text) else "中性"


def first_sentences(text: str, limit: int) -> str:
    """As many whole sentences as fit into `limit` characters; empty when the first does not."""
    taken = ""
    gap = "" if is_chinese(text) else " "
    for sentence in split_sentences(clean(text)):
        if len(taken) + len(sentence) > limit:
            break
        taken += (gap if taken else "") + sentence
    return taken if re.search(r"[。！？!?.~～]$", taken) else ""


def dialogues(data: Path, rng: random.Random, count: int) -> Iterator[list[tuple[str, str]]]:
    """Short (user, reply) turns of the dialogue sets, filtered."""
    found = 0
    records = load_trainable(data, "smilechat", 24_000)
    for record in rng.sample(records, len(records)):
        messages = record["messages"]
        start = rng.randrange(0, max(1, len(messages) - 3), 2) if rng.random() < 0.5 else 0
        turns: list[tuple[str, str]] = []
        for user, bot in zip(messages[start::2], messages[start + 1 :: 2], strict=False):
            if user["role"] != "user" or len(user["content"]) > 70 or BANNED.search(user["content"] + bot["content"]):
                break
            reply = first_sentences(bot["content"], 75)
            if len(reply) < 8:
                break
            turns.append((clean(user["content"]), reply))
            if len(turns) == rng.choice((1, 1, 2, 3)):
                break
        if turns:
            yield turns
            found += 1
            if found >= count:
                return


def english_dialogues(data: Path, rng: random.Random, count: int) -> Iterator[list[tuple[str, str]]]:
    """Short pairs of the English sets; knowledge talk is kept rare."""
    pairs: list[tuple[str, str]] = []
    for record in load_trainable(data, "topical_chat"):
        messages = record["messages"]
        at = rng.randrange(0, max(1, len(messages) - 1), 2)
        pairs += [(messages[at]["content"], messages[at + 1]["content"])] if at + 1 < len(messages) else []
    for name in ("counsel_chat", "chatterbot_ALL"):
        for record in load_trainable(data, name):
            user, bot = record["messages"][:2]
            if is_chinese(user["content"]) or not re.fullmatch(r"[\x00-\x7f’“”]*", user["content"] + bot["content"]):
                continue
            pairs.append((first_sentences(user["content"], 160), first_sentences(bot["content"], 200)))
    pairs = [
        (clean(u), clean(b)) for u, b in pairs if 2 < len(u) < 200 and 8 < len(b) < 200 and not BANNED.search(u + b)
    ]
    for pair in rng.sample(pairs, min(len(pairs), count)):
        yield [pair]


def conversation(prompts: dict[str, Prompt], turns: list[tuple[str, str, str]], rng: random.Random) -> Parts:
    """One chat example of (text, reply, mood) turns; the hint follows the user's turn and stays in the history."""
    chinese = is_chinese(turns[-1][0])
    english_prompt = rng.random() < (0.05 if chinese else 0.4)
    prompt = prompts["chat.en" if english_prompt else "chat"]
    if rng.random() < 0.15:
        prompt = text_wording("chat", turns[-1][0], rng)
        turns = turns[-1:]
    hinted = rng.random() < 0.75
    english_mood = english_prompt or rng.random() < 0.1
    frame = "The user's mood: " if english_prompt else "对方此刻的情绪："
    history: list[Message] = []

    def name(mood: str) -> str:
        return MOOD_EN[mood] if english_mood else mood

    for text, reply, mood in turns[:-1]:
        history.append(Message("user", (Part(text, False, INPUT),)))
        if hinted:
            history.append(Message("system", (Part(frame, True), Part(name(mood), False))))
        history.append(Message("assistant", (Part(reply, False, ANSWER),)))
    text, reply, mood = turns[-1]
    values = {"text": text} | ({"mood": name(mood)} if hinted else {})
    return prompt.render(values, history=history) + reply_parts(reply)


def spoken(turn: Turn) -> tuple[str, str, str]:
    """A grammar turn as (text, reply, mood)."""
    return turn.text, turn.reply, turn.mood


def small_talk_conversation(prompts: dict[str, Prompt], rng: random.Random) -> Parts:
    """One to four turns of the grammar."""
    language = rng.choice(("zh", "en"))
    count = rng.choices((1, 2, 3, 4), weights=(78, 12, 7, 3))[0]
    turns = [spoken(sample_turn(rng, language=language)) for _ in range(count)]
    if count > 1 and rng.random() < 0.15:  # the user changes the language: so does the reply
        turns[-1] = spoken(sample_turn(rng, language="en" if language == "zh" else "zh"))
    return conversation(prompts, turns, rng)


def chat_examples(data: Path, prompts: dict[str, Prompt], rng: random.Random, scale: float) -> Iterator[Parts]:
    """Single and several turns, grammar and dialogues."""
    for _ in range(int(20_000 * scale)):
        yield small_talk_conversation(prompts, rng)
    for found in dialogues(data, rng, int(2_000 * scale)):
        yield conversation(prompts, [(u, b, guess_mood(u)) for u, b in found], rng)
    for found in english_dialogues(data, rng, int(500 * scale)):
        yield conversation(prompts, [(u, b, guess_mood(u)) for u, b in found], rng)


def empathy_examples(data: Path, prompts: dict[str, Prompt], rng: random.Random, scale: float) -> Iterator[Parts]:
    """Troubles with a caring reply; a third of them asked in another wording."""

    def example(text: str, reply: str) -> Parts:
        prompt = text_wording("empathy", text, rng) if rng.random() < 1 / 3 else prompts["empathy"]
        return prompt.render({"text": text}) + reply_parts(reply)

    for _ in range(int(3_000 * scale)):
        turn = sample_turn(rng, mood="负面" if rng.random() < 0.9 else None)
        yield example(turn.text, turn.reply)
    for found in dialogues(data, rng, int(1_500 * scale)):
        yield example(*found[0])
