"""One small model, two ways: this product against `transformers` FP32 doing it the articles' way.

The articles' way sends the whole prompt each time and generates ten tokens to read one label from. Both run the same
random weights of the Qwen1.5-0.5B shape (speed does not depend on the values), prompts of the same length and as many
threads, each in processes of its own, in turn, several times in one run; the table gives medians and their ratio.

    python benchmarks/articles_way.py [--repeats 3] [--threads N] [--folder DIR] [--json]

Needs the extra `transformers`, 4 GB of disk and 5 GB of memory. Above: nothing. Below: the product's public API.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

SENTENCE = "今天和老同学在学校门口的小店吃了顿饭，味道一般，不过聊得很开心"
NUM_LABELS, BATCH, NUM_DECODED, ANSWER_TOKENS = 32, 16, 64, 10


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Median wall-clock seconds of `work`, after one run that is not counted."""
    work()
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        spent.append(time.perf_counter() - start)
    return statistics.median(spent)


def peak_bytes() -> int:
    """Largest resident size of this process so far. (On Linux `ru_maxrss` begins at the size of the parent.)"""
    status = Path("/proc/self/status")
    if status.is_file():
        return int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: bytes


def measure_ours(compiled: Path, threads: int) -> dict[str, float]:
    """Through the public API: load, `run`, `map`, `reply`."""
    from allinone import AllInOne

    start = time.perf_counter()
    ai = AllInOne.load(compiled, tasks=HERE / "tasks", threads=threads, cache=False)
    load_s = time.perf_counter() - start
    with ai:
        one = seconds(lambda: ai.run("mood", SENTENCE))
        usage = ai.run("mood", SENTENCE).usage
        texts = [f"{SENTENCE[i % 8 :]}{SENTENCE[: i % 8]}" for i in range(NUM_LABELS)]
        many = seconds(lambda: list(ai.map("mood", texts)), repeats=3) / NUM_LABELS
        decode = statistics.median(_decode_ours(ai) for _ in range(3))
    return {
        "load_s": load_s,
        "label_s": one,
        "labels_s": many,
        "decode_tokens_per_s": decode,
        "peak_bytes": peak_bytes(),
        "num_prompt_tokens": usage.num_prompt_tokens,
        "num_cached_tokens": usage.num_cached_tokens,
    }


def _decode_ours(ai: object) -> float:
    """Tokens per second of a chat reply, sampling and text included, from its first token on."""
    from allinone import AllInOne

    assert isinstance(ai, AllInOne)
    times = []
    for event in ai.reply(SENTENCE):
        if event.token_id is not None:
            times.append(time.perf_counter())
        if len(times) == NUM_DECODED:
            break
    return (len(times) - 1) / (times[-1] - times[0])


def measure_theirs(folder: Path, threads: int, num_prompt_tokens: int) -> dict[str, float]:
    """`AutoModelForCausalLM.generate`, FP32, the whole prompt each time."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    start = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    load_s = time.perf_counter() - start
    model.eval()

    def generate(batch: int, new_tokens: int) -> None:
        ids = torch.randint(0, 8_000, (batch, num_prompt_tokens))
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
            pad_token_id=0,
        )

    with torch.inference_mode():
        one = seconds(lambda: generate(1, ANSWER_TOKENS), repeats=3)
        many = seconds(lambda: generate(BATCH, ANSWER_TOKENS), repeats=1) / BATCH
        first, whole = (seconds(lambda n=n: generate(1, n), repeats=1) for n in (1, NUM_DECODED + 1))
    return {
        "load_s": load_s,
        "label_s": one,
        "labels_s": many,
        "decode_tokens_per_s": NUM_DECODED / (whole - first),
        "peak_bytes": peak_bytes(),
    }


def prepare(folder: Path) -> tuple[Path, Path]:
    """The random model as people have it, and as the product imports it; both are kept for the next run."""
    source, compiled = folder / "random-0.5b", folder / "random-0.5b-compiled"
    if not (source / "model.safetensors").is_file():
        from random_model import write_random_model

        print("writing random weights of the Qwen1.5-0.5B shape …", file=sys.stderr)
        write_random_model(source)
    if not (compiled / "manifest.json").is_file():
        print("importing them …", file=sys.stderr)
        # random weights have no labels to agree on: an unreachable bar would only bring finer, slower blocks
        command = [sys.executable, "-m", "allinone", "models", "import", str(source), "-o", str(compiled)]
        command += ["--max-error", "100"]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=sys.stderr)
        print(f"imported in {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return source, compiled


def run_worker(*arguments: object) -> dict[str, float]:
    """This script again, measuring one side in a process of its own."""
    command = [sys.executable, __file__, "--worker", *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


ROWS = (
    ("one label", "label_s", "s", False),
    (f"{NUM_LABELS} labels, each (theirs: batch {BATCH})", "labels_s", "s", False),
    ("chat decode", "decode_tokens_per_s", "tokens/s", True),
    ("peak memory", "peak_bytes", "bytes", False),
    ("loading", "load_s", "s", False),
)


def summarise(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> list[dict[str, object]]:
    """Medians, and the median, smallest and largest of the ratios run by run."""
    table = []
    for title, key, unit, is_rate in ROWS:
        pairs = [(a[key], b[key]) for a, b in zip(ours, theirs, strict=True)]
        if key in ("peak_bytes", "load_s"):
            ratios = [a / b for a, b in pairs]
        else:
            ratios = [a / b if is_rate else b / a for a, b in pairs]
        row: dict[str, object] = {"what": title, "unit": unit}
        row |= {"ours": statistics.median(a for a, _ in pairs), "theirs": statistics.median(b for _, b in pairs)}
        row |= {"ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}
        table.append(row)
    return table


def show(table: list[dict[str, object]]) -> None:
    """The table as Markdown."""

    def number(value: object, unit: object) -> str:
        assert isinstance(value, float | int)
        if unit == "bytes":
            return f"{value / 1e9:.2f} GB"
        return f"{value * 1000:.1f} ms" if unit == "s" and value < 1 else f"{value:.2f} {unit}"

    print("| work | transformers FP32, whole prompt | allinone | ratio (min to max) |")
    print("| --- | --- | --- | --- |")
    for row in table:
        cells = [number(row[side], row["unit"]) for side in ("theirs", "ours")]
        ratios = "{ratio:.2f} ({ratio_min:.2f} to {ratio_max:.2f})".format(**row)
        print(f"| {row['what']} | {cells[0]} | {cells[1]} | {ratios} |")


def main() -> None:
    """Prepare, measure both sides in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="default: what the product would take")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "allinone-benchmark")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        side, path, threads, *rest = args.worker
        measured = (
            measure_ours(Path(path), int(threads))
            if side == "ours"
            else measure_theirs(Path(path), int(threads), int(rest[0]))
        )
        print(json.dumps(measured))
        return
    from allinone.backends.onnx.kernels import detect_cpu

    threads = args.threads or detect_cpu().default_threads
    source, compiled = prepare(args.folder)
    ours, theirs = [], []
    for repeat in range(args.repeats):
        print(f"run {repeat + 1} of {args.repeats} …", file=sys.stderr)
        ours.append(run_worker("ours", compiled, threads))
        theirs.append(run_worker("theirs", source, threads, int(ours[-1]["num_prompt_tokens"])))
    table = summarise(ours, theirs)
    if args.json:
        cpu = detect_cpu()
        print(
            json.dumps(
                {
                    "cpu": cpu.name,
                    "kernel": cpu.kernel,
                    "threads": threads,
                    "rows": table,
                    "ours": ours,
                    "theirs": theirs,
                }
            )
        )
    else:
        show(table)


if __name__ == "__main__":
    main()
