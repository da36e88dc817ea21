"""Examples of the intent task: the shop intents of the built-in prompt, and open sets of candidate intents.

Neighbours: `tasks_label`, `tasks_sentiment`; the wordings come from `wordings`.
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from training.prompts import Part, Prompt
from training.smalltalk import expand, sample_turn
from training.sources import is_chinese
from training.trainable import load_trainable
from training.wordings import Form, draw_wording, load_wordings, worded

Parts = list[Part]
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

# set, candidate lists at scale 1, texts asked with each list
OPEN_SETS = (
    ("clinc150", 4500, 7),
    ("hwu64_fold1", 1500, 7),
    ("banking77", 1100, 6),
    ("snips", 300, 7),
    ("smp2019_nlu", 500, 7),
    ("fewjoint", 900, 5),
    ("cais", 100, 5),
)
SNAKE, SPACED, PLAIN = range(3)


def readable(label: str, style: int = SNAKE) -> str:
    """`cookbook.QUERY`, `PlayMusic`, `card_arrival` → lower-case words joined by `_` (or by spaces), or as it is."""
    if style == PLAIN:
        return label
    words = "".join(
        f"_{c.lower()}" if c.isupper() and i and label[i - 1].islower() else c.lower() for i, c in enumerate(label)
    ).replace(".", "_")
    return words.replace("_", " ") if style == SPACED else words


def intent_form(prompt: Prompt, names: list[str], rng: random.Random) -> Form:
    """The product's prompt, or another wording, with these candidates in this order."""
    labels = {name: (name, "") for name in names}
    if rng.random() < 0.7:
        return Form(prompt, labels)
    system, user = draw_wording(load_wordings()["intent"], rng.choice(("zh", "en")), rng)
    return Form(worded(system, user, names, rng), labels)


def shop_examples(prompt: Prompt, rng: random.Random, count: int) -> Iterator[Parts]:
    """The intents of the built-in prompt, from a grammar; often all of them in the order of the file."""
    names = [n for n, _ in prompt.labels]
    forms = [Form(prompt, {n: (n, "") for n in names})] * 8
    for _ in range(40):
        chosen = rng.sample(names, rng.randint(3, len(names)))
        forms.append(intent_form(prompt, chosen, rng))
    for _ in range(count):
        label = rng.choice(names)
        if label == "闲聊":
            text = sample_turn(rng).text
        else:
            text = expand(rng.choice(SHOP_INTENTS[label]), rng)
            text += rng.choice(["", "", "。", "！", "，谢谢"]) if is_chinese(text) else rng.choice(["", "", ".", "!"])
        yield rng.choice([f for f in forms if label in f.labels]).example(text, label)


def open_examples(data: Path, prompt: Prompt, name: str, lists: int, texts: int, rng: random.Random) -> Iterator[Parts]:
    """Texts of one set with random candidate lists, most of them of ten; several texts share a list."""
    by_label: dict[str, list[str]] = defaultdict(list)
    for record in load_trainable(data, name):
        if record["label"] != "oos":
            by_label[record["label"]].append(record["text"])
    labels = sorted(by_label)
    for _ in range(lists):
        size = min(len(labels), 10 if rng.random() < 0.55 else rng.randint(2, 14))
        chosen = rng.sample(labels, size)
        style = rng.choices((SNAKE, SPACED, PLAIN), weights=(60, 20, 20))[0]
        form = intent_form(prompt, [readable(label, style) for label in chosen], rng)
        for _ in range(texts):
            label = rng.choice(chosen)
            yield form.example(rng.choice(by_label[label]), readable(label, style))


def intent_examples(data: Path, prompts: dict[str, Prompt], rng: random.Random, scale: float) -> Iterator[Parts]:
    """The shop intents, then the open sets."""
    prompt = prompts["intent"]
    yield from shop_examples(prompt, rng, int(3_000 * scale))
    for name, lists, texts in OPEN_SETS:
        yield from open_examples(data, prompt, name, int(lists * scale), texts, rng)
