"""What guessing from the prompt saves: `python -m benchmarks.guesses [--shape qwen1.5-0.5b]`.

First the rewriting tasks on the bundled model: each text in turn with and without guesses, and whether the ids are the
same. Then what a step costs that checks so many guesses, on random weights of a shape, whose output repeats nothing.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from allinone import AllInOne
from allinone.backends.base import Chunk
from allinone.backends.onnx.backend import OnnxBackend
from allinone.bench.shapes import SHAPES, make_model
from allinone.engine.requests import GenerateRequest
from allinone.tasks.task import build_generate_request, prepare_call

TEXTS: dict[str, tuple[str, ...]] = {
    "typo": (
        "我门去公圆玩。",
        "请大家按时参加会议,并提前准备好相关才料。",
        "这个产品的质量非常好,服务态渡也很热情,我会在次购买的,推荐给大家。",
        "今天早上我和朋友一起去学校,路上遇到了很多同学,大家都很高心,因为明天就要放暑假了。",
    ),
    "summarize": (
        "昨天下午,市图书馆举办了一场面向青少年的读书活动。活动邀请了三位本地作家,与一百多名学生分享写作经验。"
        "现场还设置了图书交换区,许多学生带来了自己读过的书。",
        "公司宣布从下个月开始实行弹性工作制。员工可以在早上七点到十点之间到岗,每周还可以在家工作两天。",
    ),
    "polish": ("这个东西很好用,我觉得大家都应该去试一下,真的不错。", "我昨天去了那个新开的店,东西还行,就是有点贵。"),
    "grammar": (
        "She go to school every day and he like to playing basketball with his friend in the park.",
        "I have saw this movie two times and it were very interesting.",
    ),
}
NUM_PREFIX, PASTS = 68, (100, 1000)
SIZES = (0, 1, 2, 4, 8, 12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One text with and without guesses: milliseconds and steps, and how many guesses were made and right."""

    task: str
    num_tokens: int
    plain_ms: float
    guessed_ms: float
    num_plain_steps: int
    num_guessed_steps: int
    num_guesses: int
    num_right: int


def compare(ai: AllInOne, task: str, text: str, *, rounds: int) -> Comparison:
    """Run a task on a text in both ways, in turn.

    Raises:
        RuntimeError: the ids differ.
    """
    request = build_generate_request(prepare_call(ai.tasks.get(task), ai.encoder, {"text": text}), ai.encoder)
    guessing = replace(request, sampling=replace(request.sampling, seed=1))
    plain = replace(guessing, sampling=replace(guessing.sampling, prompt_lookup_num_tokens=0))
    runs = [(_run(ai, plain), _run(ai, guessing)) for _ in range(rounds + 1)][1:]
    if any(slow[0] != fast[0] for slow, fast in runs):
        raise RuntimeError(f"Guesses changed the answer of {task} to {text!r}.")
    slow, fast = runs[0]
    return Comparison(
        task=task,
        num_tokens=len(slow[0]),
        plain_ms=statistics.median(run[1] for run, _ in runs),
        guessed_ms=statistics.median(run[1] for _, run in runs),
        num_plain_steps=slow[2],
        num_guessed_steps=fast[2],
        num_guesses=fast[3],
        num_right=fast[4],
    )


def _run(ai: AllInOne, request: GenerateRequest) -> tuple[tuple[int, ...], float, int, int, int]:
    """Ids, milliseconds, steps, guesses, right guesses."""
    before, began = ai.stats(), time.perf_counter()
    said = ai.engine.stream(request).result()
    lasted, after = 1e3 * (time.perf_counter() - began), ai.stats()
    return (
        said.token_ids,
        lasted,
        after.num_steps - before.num_steps,
        after.num_draft_tokens - before.num_draft_tokens,
        after.num_accepted_tokens - before.num_accepted_tokens,
    )


def step_times(backend: OnnxBackend, num_past: int, *, calls: int) -> Iterator[tuple[int, float]]:
    """Milliseconds of a step that checks so many guesses after a past, for each of `SIZES`."""
    prefix = backend.fork()
    backend.extend([Chunk(sequence=prefix, input_ids=range(NUM_PREFIX))])
    stream = backend.fork(prefix)
    backend.extend([Chunk(sequence=stream, input_ids=[7] * num_past)])
    for size in SIZES:
        ids = range(1 + size)
        wanted: Any = {"wanted": "tail_logits", "num_rows": len(ids), "is_draft": True}
        lasted: list[float] = []
        for _ in range(calls + 3):
            began = time.perf_counter()
            backend.extend([Chunk(sequence=stream, input_ids=ids, **wanted)])
            lasted.append(1e3 * (time.perf_counter() - began))
            backend.trim(stream, NUM_PREFIX + num_past)
        yield size, statistics.median(lasted[3:])
    backend.free(stream)
    backend.free(prefix)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="qwen1.5-0.5b")
    parser.add_argument("--rounds", type=int, default=9, help="of each text or step (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=None)
    args = parser.parse_args()
    with AllInOne.load(threads=args.threads) as ai:
        print("bundled model     tokens   steps   guesses right   ms without, with guesses")
        for task, texts in TEXTS.items():
            for text in texts:
                one = compare(ai, task, text, rounds=args.rounds)
                steps = f"{one.num_plain_steps} → {one.num_guessed_steps}"
                right = f"{one.num_right} of {one.num_guesses}"
                times = f"{one.plain_ms:.0f}, {one.guessed_ms:.0f} ({one.plain_ms / one.guessed_ms:.1f} ×)"
                print(f"{task:16} {one.num_tokens:6}   {steps:10} {right:12}   {times}", flush=True)
    backend = OnnxBackend.load(make_model(args.shape, SHAPES[args.shape]), num_threads=args.threads)
    for num_past in PASTS:
        times = [f"{size}: {lasted:.1f} ms" for size, lasted in step_times(backend, num_past, calls=args.rounds)]
        print(f"{args.shape}, {num_past} tokens of past, guesses in a step: {', '.join(times)}", flush=True)
    backend.close()


if __name__ == "__main__":
    main()
