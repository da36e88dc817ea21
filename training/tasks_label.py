"""Examples of the label tasks: sentiment, emotion, intent.

Neighbours: `tasks_text`, `tasks_chat`; `corpus` mixes them.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from training.lexicon import phrases
from training.prompts import ANSWER, LABEL, Part, Prompt, chat_body
from training.smalltalk import EMOTION_EN, MOOD_EN, sample_turn
from training.sources import clean, is_chinese, load_train, split_sentences, t0_reviews
from training.teacher import Teacher

Case = tuple[str, str]  # text, label (正面 负面 中性, or one of the six emotions)
Parts = list[Part]
EWECT = {"happy": "快乐", "sad": "悲伤", "angry": "愤怒", "fear": "恐惧", "surprise": "惊讶", "neutral": "平静"}
EKMAN = {"joy": "快乐", "sadness": "悲伤", "anger": "愤怒", "fear": "恐惧", "surprise": "惊讶", "neutral": "平静"}
WEIBO = {
    "optimism": "快乐",
    "gratitude": "快乐",
    "anger": "愤怒",
    "sadness": "悲伤",
    "fear": "恐惧",
    "surprise": "惊讶",
}
POLARITY = {"快乐": "正面", "悲伤": "负面", "愤怒": "负面", "恐惧": "负面", "平静": "中性"}
SIGN = {"pos": "正面", "neg": "负面", "positive": "正面", "negative": "负面"}

SENTIMENT_WORDINGS = (  # system text, user text, names of 正面 负面 中性
    ("判断下面文本的情感倾向，只回答：{labels}", "{{text}}", ("正面", "负面", "中性")),
    ("你是一个情感分析助手，只输出一个词。可选：{labels}", "文本：{{text}}\n情感：", ("正面", "负面", "中性")),
    ("情感分类。标签：{labels}", "{{text}}", ("积极", "消极", "中立")),
    ("下面的评价是好评还是差评？只回答{labels}", "{{text}}", ("好评", "差评", "中性")),
    (
        "You are a sentiment classifier. Labels: {labels}. Reply with one label.",
        "{{text}}",
        ("positive", "negative", "neutral"),
    ),
    (
        "Classify the sentiment of the text as {labels}.",
        "Text: {{text}}\nSentiment:",
        ("Positive", "Negative", "Neutral"),
    ),
    ("Is the review {labels}? Answer with one word.", "{{text}}", ("positive", "negative", "neutral")),
    ("You are a helpful assistant.", "Is this text {labels}? {{text}}", ("positive", "negative", "neutral")),
    ("You are a helpful assistant", "判断这句话的情感（{labels}）：{{text}}", ("正面", "负面", "中性")),
)


def answer(label: str) -> Parts:
    """The answer of a label task: the label, then the end of the turn."""
    return [Part(label, False, LABEL), Part("<|im_end|>", True, ANSWER)]


def shorten(text: str, limit: int = 320) -> str:
    """Head and tail of a long text: opinions sit at both ends."""
    text = clean(text).replace("\n", " ")
    return text if len(text) <= limit else f"{text[: limit // 2]}…{text[-limit // 2 :]}"


def ask_label(prompt: Prompt, text: str, label: str, names: Sequence[str], rng: random.Random) -> Parts:
    """An example of a label prompt restricted to `names`, mostly in the order of the file."""
    described = dict(prompt.labels)
    chosen = [n for n in described if n in names] + [n for n in names if n not in described]
    if rng.random() < 0.15:
        rng.shuffle(chosen)
    return prompt.render({"text": text}, labels=[(n, described.get(n, "")) for n in chosen]) + answer(label)


def sentiment_example(prompts: dict[str, Prompt], text: str, label: str, rng: random.Random) -> Parts:
    """One sentiment example in a random wording; two-label forms only where the text has a polarity."""
    text = shorten(text)
    with_neutral = label == "中性" or rng.random() < 0.5
    names = ["正面", "负面", "中性"] if with_neutral else ["正面", "负面"]
    draw = rng.random()
    chinese = is_chinese(text)
    if draw < (0.68 if chinese else 0.48):
        return ask_label(prompts["sentiment"], text, label, names, rng)
    if draw < 0.85:
        return ask_label(prompts["sentiment.en"], text, MOOD_EN[label], [MOOD_EN[n] for n in names], rng)
    system, user, words = rng.choice(SENTIMENT_WORDINGS)
    words = words if with_neutral else words[:2]
    listed = (
        " / ".join(words) if rng.random() < 0.5 else "、".join(words) if is_chinese(words[0]) else " or ".join(words)
    )
    prompt = Prompt("wording", chat_body(system.replace("{labels}", listed), user.replace("{labels}", listed)))
    return prompt.render({"text": text}) + answer(words[("正面", "负面", "中性").index(label)])


def teacher_cases(data: Path) -> tuple[list[Case], Teacher]:
    """The labelled English polarity sets, and a teacher fitted on them."""
    cases = [(r["text"], r["label"], 1.0) for r in load_train(data, "en_sst2")]
    reviews = list(t0_reviews(data))
    soft = [(t, float(y == "pos"), 1.0) for t, y, _ in cases]
    soft += [(t, float(y == "pos"), 0.5) for t, y in reviews + phrases(random.Random(0), 8000)]
    return [(t, SIGN[y]) for t, y, _ in cases], Teacher(soft, epochs=2)


def english_spans(data: Path, rng: random.Random, teacher: Teacher, count: int) -> Iterator[Case]:
    """Spans and sentences of English opinion texts, labelled by the teacher where it is sure."""
    sources = [r["text"] for r in load_train(data, "en_sst2")]
    sources += [s for text, _ in t0_reviews(data) for s in split_sentences(text)]
    spans: list[str] = []
    for _ in range(count * 3):
        words = rng.choice(sources).split()
        size = rng.randint(3, 14)
        start = rng.randint(0, max(0, len(words) - size))
        spans.append(" ".join(words[start : start + size]))
    sure = [(s, p) for s, p in zip(spans, teacher.predict(spans), strict=True) if abs(p - 0.5) > 0.3 and len(s) > 8]
    for span, p in sure[:count]:
        yield span, "正面" if p > 0.5 else "负面"


def sentiment_cases(data: Path, rng: random.Random, scale: float) -> Iterator[Case]:
    """Texts with 正面, 负面 or 中性: reviews, posts, small talk, phrases, plain facts; both languages."""

    def some(cases: list[Case], count: int) -> list[Case]:
        return rng.sample(cases, min(len(cases), int(count * scale)))

    def labelled(name: str) -> list[Case]:
        return [(r["text"], SIGN[r["label"]]) for r in load_train(data, name)]

    yield from some(labelled("zh_online_shopping_10_cats"), 24_000)
    yield from some(labelled("zh_book_review"), 6_000)
    yield from some(labelled("zh_conversation_sentiment"), 2_500)
    emotions = [(r["text"], EWECT[r["label"]]) for r in load_train(data, "zh_ewect_usual")]
    yield from some([(t, POLARITY[e]) for t, e in emotions if e in POLARITY], 7_000)
    go = [(r["text"], EKMAN.get(r["label"], "")) for r in load_train(data, "en_goemotions_ekman")]
    yield from some([(t, POLARITY[e]) for t, e in go if e in POLARITY], 7_000)
    yield from some(
        [
            (t, "负面")
            for t, y in [(r["text"], r["label"]) for r in load_train(data, "en_goemotions_ekman")]
            if y in ("disgust", "anger", "sadness")
        ],
        2_000,
    )
    yield from some([(t, SIGN[y]) for t, y in phrases(rng, 3_000, "zh")], 1_200)
    yield from some([(t, SIGN[y]) for t, y in phrases(rng, 6_000)], 5_000)
    sst, teacher = teacher_cases(data)
    yield from some(sst, 6_902)
    yield from some([(t, SIGN[y]) for t, y in t0_reviews(data)], 900)
    yield from some([(s, SIGN[y]) for t, y in t0_reviews(data) for s in (shorten(t, 160),)], 900)
    yield from english_spans(data, rng, teacher, int(13_000 * scale))
    for _ in range(int(13_000 * scale)):
        turn = sample_turn(rng)
        if turn.situation not in ("joke", "encourage"):
            yield turn.text, turn.mood
    yield from some(neutral_cases(data, rng), 3_500)


def neutral_cases(data: Path, rng: random.Random) -> list[Case]:
    """Requests, questions and sentences of articles: statements without a feeling."""
    texts = [r["text"] for name in ("smp2019_nlu", "fewjoint", "snips") for r in load_train(data, name)[:4000]]
    texts += [r["text"] for r in load_train(data, "zh_plexpt_questions", 3000)]
    for name in ("wikitext2", "zh_lctt_articles", "csl_summary_zip"):
        for record in load_train(data, name, 1500):
            found = [
                s for s in split_sentences(record["text"]) if 12 < len(s) < 90 and "<unk>" not in s and "http" not in s
            ]
            texts += rng.sample(found, min(2, len(found)))
    return [(clean(t), "中性") for t in texts if 3 < len(t) < 120]


def emotion_examples(data: Path, prompts: dict[str, Prompt], rng: random.Random, scale: float) -> Iterator[Parts]:
    """Six emotions, the Chinese and the English prompt, both languages of text."""
    cases = [(r["text"], EWECT[r["label"]]) for r in load_train(data, "zh_ewect_usual")]
    cases = rng.sample(cases, int(10_000 * scale))
    cases += rng.sample(
        [(r["text"], EWECT[r["label"]]) for r in load_train(data, "zh_ewect_virus")], int(2_000 * scale)
    )
    cases += rng.sample(
        [(r["text"], WEIBO[r["label"]]) for r in load_train(data, "zh_covid_weibo_7") if r["label"] in WEIBO],
        int(2_000 * scale),
    )
    go = [(r["text"], EKMAN[r["label"]]) for r in load_train(data, "en_goemotions_ekman") if r["label"] in EKMAN]
    rare = [c for c in go if c[1] not in ("快乐", "平静")]
    cases += rng.sample(go, int(4_000 * scale)) + rng.sample(rare, int(2_500 * scale))
    tweets = [(r["text"], EKMAN[r["label"]]) for r in load_train(data, "en_tweeteval_emotion") if r["label"] in EKMAN]
    cases += rng.sample(tweets, int(1_000 * scale))
    for _ in range(int(4_000 * scale)):
        turn = sample_turn(rng)
        cases.append((turn.text, turn.emotion))
    for text, label in cases:
        english = rng.random() < (0.15 if is_chinese(text) else 0.5)
        prompt = prompts["emotion.en" if english else "emotion"]
        names = list(EMOTION_EN.values() if english else EMOTION_EN)
        right = EMOTION_EN[label] if english else label
        if rng.random() < 0.2:
            names = [n for n in names if n == right or rng.random() < 0.6]
        yield ask_label(prompt, shorten(text, 200), right, names, rng)


SHOP_INTENTS: dict[str, tuple[str, ...]] = {
    "查订单": (
        "我的[订单|快递|包裹]到哪[了|儿了][|？]",
        "[帮我|]查[一下|询][订单|物流|快递][|状态]",
        "[订单|单号][1024|8832|3391]什么时候[发货|到]",
        "什么时候[发货|能到|送到][？|]",
        "Where is my [order|package|parcel]?",
        "[Track|Check] my order[| status|, please]",
        "When will my [order|package] arrive?",
    ),
    "退款": (
        "我[要|想]退[款|货|钱]",
        "[怎么|如何]申请退[款|货][？|]",
        "[不想要了|买错了]，[能退吗|给我退款|帮我退掉]",
        "钱什么时候退[给我|回来][？|]",
        "I want [a refund|my money back]",
        "How [do|can] I [return this|get a refund]?",
        "Please refund [me|my order]",
    ),
    "投诉": (
        "我要投诉[你们|客服|快递员|商家|这家店]",
        "[客服|快递员|司机]态度[太差|恶劣][，我要投诉|，给个说法|]",
        "[等了一个小时没人管|东西是坏的|你们骗人]，[太过分了|我要举报|叫你们经理来]",
        "I want to [complain|file a complaint|speak to a manager]",
        "Your [service|driver|staff] was [rude|terrible], [this is unacceptable|I want to complain]",
    ),
    "咨询": (
        "[请问|想问一下|]这[个|款][有|还有]什么[颜色|尺码|功能][？|]",
        "[请问|]你们[几点关门|营业时间是什么|支持货到付款吗|在哪里][？|]",
        "[会员|保修|运费|优惠券][怎么算|怎么用|多少钱|是多久][？|]",
        "How much [does it cost|is shipping|is it]?",
        "What are your [opening hours|prices]?",
        "Do you [ship abroad|have this in black|accept cards]?",
    ),
    "预约": (
        "[我想|帮我|]预约[明天|周六|下午三点|后天上午]的[理发|挂号|维修|体检|保养]",
        "[帮我|我要|]订[一个包间|两张票|今晚的位子|一间房]",
        "[明天下午|周日]有[空位|号]吗，[我想约一个|帮我约]",
        "[Book|Reserve] a [table|room|seat] for [two|tomorrow|tonight]",
        "I'd like to [make an appointment|book a visit|schedule a repair]",
    ),
}
INTENT_WORDINGS = (
    "Choose the intent of the message from this list:\n{{#each labels}}\n- {{label}}\n{{/each}}",
    "识别意图，从下列选项中选一个：{{#each labels}}{{label}} {{/each}}",
    "What does the user want? Options: {{#each labels}}{{label}}; {{/each}}",
)


def intent_examples(data: Path, prompts: dict[str, Prompt], rng: random.Random, scale: float) -> Iterator[Parts]:
    """The shop intents of the built-in prompt from a grammar, and open label sets from the intent corpora."""
    from training.smalltalk import expand

    prompt = prompts["intent"]
    names = [n for n, _ in prompt.labels]
    for _ in range(int(4_000 * scale)):
        label = rng.choice(names)
        if label == "闲聊":
            text = sample_turn(rng).text
        else:
            text = expand(rng.choice(SHOP_INTENTS[label]), rng) + rng.choice(["", "", "。", "！", "，谢谢"])
            text = text.replace("，谢谢", "") if not is_chinese(text) else text
        shown = names if rng.random() < 0.7 else [n for n in names if n == label or rng.random() < 0.6]
        yield ask_label(prompt, text, label, shown, rng)
    for name, count in (
        ("clinc150", 2500),
        ("snips", 900),
        ("hwu64_fold1", 1200),
        ("banking77", 900),
        ("smp2019_nlu", 900),
        ("fewjoint", 1500),
    ):
        records = [r for r in load_train(data, name) if r["label"] != "oos"]
        labels = sorted({r["label"] for r in records})
        for record in rng.sample(records, min(len(records), int(count * scale))):
            others = rng.sample([x for x in labels if x != record["label"]], min(len(labels) - 1, rng.randint(2, 5)))
            shown = [readable(x) for x in [record["label"], *others]]
            rng.shuffle(shown)
            used = prompt if rng.random() < 0.7 else Prompt("wording", chat_body(rng.choice(INTENT_WORDINGS)))
            yield used.render({"text": record["text"]}, labels=[(n, "") for n in shown]) + answer(
                readable(record["label"])
            )


def readable(label: str) -> str:
    """`cookbook.QUERY`, `PlayMusic`, `card_arrival` → lower-case words joined by `_`."""
    spaced = "".join(
        f"_{c.lower()}" if c.isupper() and i and label[i - 1].islower() else c.lower() for i, c in enumerate(label)
    )
    return spaced.replace(".", "_")
