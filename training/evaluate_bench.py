"""One exported model under test, asked through the product: what the evaluation's figures see is what users get.

Owns the loaded product with the extra task files of the evaluation (other label orders, unseen wordings, a chat with a
fixed seed), the data sets cut to size, and answers asked before. Above: `evaluate_*` and `calibrate`.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import yaml
from rich.console import Console
from rich.progress import track

from allinone import AllInOne, Result
from allinone.prompts.front_matter import LabelSpec
from allinone.prompts.library import PromptLibrary
from training.evaluate_metrics import FloatArray
from training.settings import HERE
from training.sources import Record, load_public

QUICK_CASES = 200
NUM_THREADS_ASKING = 32
CHAT_SEED = 7
_JOINT = {"zh": "、", "en": ", "}
UNSEEN_WORDINGS = HERE / "unseen_wordings.yaml"
BINARY = ("positive", "negative")
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One measured value; None where it cannot be measured, and `note` says why."""

    value: float | None
    cases: int = 0
    note: str = ""
    details: dict[str, Any] = field(default_factory=dict[str, Any])


class Bench:
    """A model, the data folder, and how much of it is asked. A context manager.

    Args:
        gguf: path of the exported file, or "bundled".
        data: folder with `public/` (and `train/`, for calibration).
        max_cases: only the first records of each set; all where None.
        threads: of the backend; the physical cores where None.
    """

    def __init__(self, gguf: str, data: Path, *, max_cases: int | None = None, threads: int | None = None) -> None:
        self.data, self.max_cases = data, max_cases
        self._console = Console(stderr=True)
        self._known: dict[str, Any] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="allinone-evaluate-")
        write_tasks(Path(self._folder.name))
        self.ai = AllInOne.load(gguf, tasks=self._folder.name, threads=threads, cache=False)

    def __enter__(self) -> "Bench":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ai.close()
        self._folder.cleanup()

    def records(self, name: str) -> list[Record]:
        """A public set, or its beginning."""
        return load_public(self.data, name)[: self.max_cases]

    def track(self, items: Iterable[_T], what: str, total: int) -> Iterator[_T]:
        """The items, with a progress bar on stderr."""
        return iter(
            track(
                items,
                f"{what:<32}",
                total,
                console=self._console,
                transient=True,
                disable=not self._console.is_terminal,
            )
        )

    def fit(self, task: str, text: str) -> str:
        """The head of a text that is as long as the task takes."""
        limit = self.ai.tasks.get(task).limits.max_input_tokens
        return text if limit is None else self.ai.encoder.shorten(text, limit)[0]

    def label_probs(
        self, task: str, texts: Sequence[str], labels: Sequence[str] | None = None, what: str = ""
    ) -> FloatArray:
        """Probabilities (num_texts, num_labels) of a label task; labels in the order asked for, or of the file."""
        fitted = [self.fit(task, text) for text in texts]
        results = self.track(self.ai.map(task, fitted, labels=labels), what or task, len(texts))
        return np.array([list((result.probs or {}).values()) for result in results])

    def answers(self, task: str, dataset: str, labels: Sequence[str], first: int | None = None) -> FloatArray:
        """`label_probs` on a public set, or on its first records; asked once. `labels` by their English names."""
        texts = [record["text"] for record in self.records(dataset)][:first]
        name = f"{dataset} · {task}"
        key = f"{name} · {','.join(labels)}"
        if len(self._known.get(key, ())) < len(texts):
            self._known[key] = self.label_probs(task, texts, labels, name)
        return self._known[key][: len(texts)]

    def once(self, name: str, compute: Callable[[], _T]) -> _T:
        """What `compute` gave the first time it was asked under this name."""
        if name not in self._known:
            self._known[name] = compute()
        return self._known[name]

    def has(self, name: str) -> bool:
        """Whether something was computed under this name."""
        return name in self._known

    def run_each(self, task: str, cases: Sequence[tuple[str, Sequence[str]]], what: str) -> list[Result]:
        """A label task on (text, labels), each text with labels of its own; many at a time, answers in order."""

        def ask(case: tuple[str, Sequence[str]]) -> Result:
            return self.ai.run(task, self.fit(task, case[0]), labels=case[1])

        with ThreadPoolExecutor(NUM_THREADS_ASKING) as pool:
            return list(self.track(pool.map(ask, cases), what, len(cases)))

    def replies(self, texts: Sequence[str], what: str) -> list[tuple[Result, Result]]:
        """(mood, reply) to each text, as a conversation of one turn gives it; many at a time, in order."""

        def ask(text: str) -> tuple[Result, Result]:
            reply = self.ai.reply(text)
            return reply.mood, reply.result()

        with ThreadPoolExecutor(NUM_THREADS_ASKING) as pool:
            return list(self.track(pool.map(ask, texts), what, len(texts)))

    def wordings(self, task: str) -> list[str]:
        """Names of the tasks that ask in wordings kept out of training."""
        return [name for name in self.ai.tasks.names() if name.startswith(f"{task}.unseen-")]

    def orders(self, task: str) -> list[str]:
        """Names of the tasks that list the labels in another order."""
        return [name for name in self.ai.tasks.names() if name.startswith(f"{task}.order-")]


def write_tasks(folder: Path) -> None:
    """The task files of the evaluation, made from the built-in ones.

    All are variants (`sentiment.order-3`), so that the model's temperature of the task holds for them.
    """
    builtin = PromptLibrary.load()
    chat = builtin.get("chat").text.replace("config: {", f"config: {{seed: {CHAT_SEED}, ", 1)
    (folder / "chat.prompt").write_text(chat, encoding="utf-8")
    for task in ("sentiment", "emotion"):
        prompt = builtin.get(task)
        body = prompt.text.split("\n---\n", 1)[1]
        orders = list(permutations(prompt.labels))[1:] if len(prompt.labels) < 4 else _rotations(prompt.labels)
        for number, labels in enumerate(orders):
            write_label_task(folder / f"{task}.order-{number}.prompt", labels, body)
        asked = [spec for spec in prompt.labels if task != "sentiment" or spec.name in BINARY]
        english = builtin.get(f"{task}.en").labels
        by_language = {"zh": asked, "en": [spec for spec in english if spec.name in {s.name for s in asked}]}
        listed = {language: _JOINT[language].join(spec.label for spec in by_language[language]) for language in _JOINT}
        for language, number, body in unseen_wordings(task, listed):
            write_label_task(folder / f"{task}.unseen-{language}-{number}.prompt", by_language[language], body)
    candidates = {
        language: f"{{{{#each labels}}}}{{{{label}}}}{joint}{{{{/each}}}}" for language, joint in _JOINT.items()
    }
    for language, number, body in unseen_wordings("intent", candidates):
        path = folder / f"intent.unseen-{language}-{number}.prompt"
        write_label_task(path, builtin.get("intent").labels, body, is_open=True)


def _rotations(labels: Sequence[LabelSpec]) -> list[tuple[LabelSpec, ...]]:
    """Backwards, and turned by a half."""
    half = len(labels) // 2
    return [tuple(reversed(labels)), (*labels[half:], *labels[:half])]


def write_label_task(path: Path, labels: Sequence[LabelSpec], body: str, *, is_open: bool = False) -> None:
    """A label task with these labels in this order; an open one may be asked with others."""
    front: dict[str, Any] = {
        "description": "a form of a built-in task, for evaluation",
        "input": {"schema": {"text": "string"}},
        "allinone.kind": "label",
        "allinone.labels": {spec.label: {"name": spec.name, **_description(spec)} for spec in labels},
        "allinone.limits": {"max_input_tokens": 512},
        "allinone.open_labels": is_open,
    }
    head = yaml.safe_dump(front, allow_unicode=True, sort_keys=False)
    path.write_text(f"---\n{head}---\n{body}", encoding="utf-8")


def _description(spec: LabelSpec) -> dict[str, str]:
    return {"description": spec.description} if spec.description else {}


def unseen_wordings(task: str, listed: dict[str, str], path: Path = UNSEEN_WORDINGS) -> Iterator[tuple[str, int, str]]:
    """(language, number, body) of each wording kept out of training; nothing while there is no file of them.

    The file: task → language → list of {system, user}; `{labels}` is the list of labels in that language (`listed`),
    `{{text}}` the text.
    """
    if not path.is_file():
        return
    for language, wordings in yaml.safe_load(path.read_text(encoding="utf-8")).get(task, {}).items():
        for number, wording in enumerate(wordings):
            system, user = (wording[role].replace("{labels}", listed[language]) for role in ("system", "user"))
            yield language, number, f'{{{{role "system"}}}}\n{system}\n{{{{role "user"}}}}\n{user}\n'
