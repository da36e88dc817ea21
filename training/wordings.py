"""Forms of the label tasks: the product's prompts and other wordings, with labels renamed, reordered or left out.

A form is drawn once and used by many texts, because examples with the same prefix share it in a row (see `packing`).
Beside them the wordings of the tasks that answer with text: these have no labels and are drawn for every example.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import tomllib

from training.prompts import ANSWER, LABEL, Part, Prompt, chat_body
from training.sources import is_chinese

Parts = list[Part]
JOINTS = (" / ", "、", ", ", "，", "|", " or ", "; ")


def answer(label: str) -> Parts:
    """The answer of a label task: the label, then the end of the turn."""
    return [Part(label, False, LABEL), Part("<|im_end|>", True, ANSWER)]


@lru_cache(maxsize=1)
def load_wordings() -> dict[str, dict[str, Any]]:
    """The wordings that are trained on, by task."""
    with Path(__file__).with_name("wordings.toml").open("rb") as file:
        return tomllib.load(file)


@lru_cache(maxsize=1)
def load_text_wordings() -> dict[str, dict[str, list[list[str]]]]:
    """The wordings of the tasks that answer with text: task → language → [system, user] pairs."""
    with Path(__file__).with_name("wordings_text.toml").open("rb") as file:
        return tomllib.load(file)


def text_wording(task: str, text: str, rng: random.Random) -> Prompt:
    """A wording of a text task, mostly in the language of `text`."""
    language = "zh" if rng.random() < (0.6 if is_chinese(text) else 0.3) else "en"
    system, user = rng.choice(load_text_wordings()[task][language])
    return Prompt("wording", chat_body(system, user))


@dataclass(frozen=True, slots=True)
class Form:
    """One way to ask: the prompt, and key → (name shown, description) in the order shown."""

    prompt: Prompt
    labels: dict[str, tuple[str, str]]

    def example(self, text: str, key: str) -> Parts:
        """A training example: the question about `text`, and the name of `key` as its answer."""
        return self.prompt.render({"text": text}, labels=list(self.labels.values())) + answer(self.labels[key][0])


def worded(system: str, user: str, names: Sequence[str], rng: random.Random) -> Prompt:
    """A wording with its labels listed in some style."""
    listed = rng.choice(JOINTS).join(names)
    return Prompt("wording", chat_body(system.replace("{labels}", listed), user.replace("{labels}", listed)))


def draw_wording(table: dict[str, Any], language: str, rng: random.Random) -> tuple[str, str]:
    """(system, user) of a wording: a whole one, or two halves that go together in that `{labels}` is not missing."""
    if rng.random() < 0.3:
        system, user = rng.choice(table[language])
        return system, user
    while True:
        system, user = rng.choice(table[f"{language}_systems"]), rng.choice(table[f"{language}_users"])
        if "{labels}" in system + user:
            return system, user


def product_form(prompt: Prompt, keys: Sequence[str], order: Sequence[int]) -> Form:
    """The product's prompt with its labels at `order` of the file; `keys` are their names here."""
    return Form(prompt, {keys[i]: prompt.labels[i] for i in order})


class FormPool:
    """Forms of one label task in both languages: the product's own, and a fixed number of varied ones."""

    def __init__(
        self, prompts: dict[str, Prompt], task: str, keys: Sequence[str], rng: random.Random, varied: int = 800
    ) -> None:
        """Args:
        prompts: the product's prompts by name; `task` and `task.en` are used.
        keys: canonical names of the labels, in the order of the prompt files.
        varied: how many varied forms are drawn for each language.
        """
        self.keys = list(keys)
        wordings = load_wordings()[task]
        self.product: dict[str, list[Form]] = {}
        self.varied: dict[str, list[Form]] = {}
        for language, name in (("zh", task), ("en", f"{task}.en")):
            self.product[language] = [product_form(prompts[name], keys, range(len(keys)))]
            if len(keys) == 3:  # sentiment is often asked with its two poles only
                self.product[language].append(product_form(prompts[name], keys, range(2)))
            forms: list[Form] = []
            for _ in range(varied):
                order = self._order(rng)
                if rng.random() < 0.4:
                    forms.append(product_form(prompts[name], keys, order))
                    continue
                names = rng.choice(wordings[f"{language}_labels"])
                system, user = draw_wording(wordings, language, rng)
                prompt = worded(system, user, [names[i] for i in order], rng)
                forms.append(Form(prompt, {keys[i]: (names[i], "") for i in order}))
            self.varied[language] = forms

    def _order(self, rng: random.Random) -> list[int]:
        """Indices of the labels of one form: some or all of them, in any order."""
        count = len(self.keys)
        order = list(range(count))
        if rng.random() < 0.35:  # sentiment: the first two; others: any subset of three or more
            order = [0, 1] if count == 3 else sorted(rng.sample(order, rng.randint(3, count - 1)))
        if rng.random() < 0.65:
            rng.shuffle(order)
        return order

    def example(self, text: str, key: str, rng: random.Random, product: float = 0.33) -> Parts:
        """The text in a random form that offers its label; a share `product` is asked exactly as the product asks."""
        language = "en" if rng.random() < (0.14 if is_chinese(text) else 0.55) else "zh"
        forms = self.product[language] if rng.random() < product else self.varied[language]
        return rng.choice([f for f in forms if key in f.labels]).example(text, key)
