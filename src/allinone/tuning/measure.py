"""One candidate, measured in a process of its own, so that its memory is its own: python -m allinone.tuning.measure.

`measure_apart` starts the process; `main` is what runs in it: an order as JSON in, a measurement as JSON out. Speeds
are medians over rounds on the built-in texts, asked of the backend itself. Above: `tune.py`. Below: `loading.py`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from allinone.backends.base import Backend, Chunk, SequenceId
from allinone.backends.onnx.agreement import AgreementCase, builtin_cases, score_cases
from allinone.errors import AllInOneError, RunError
from allinone.loading import LoadedModel, load_model
from allinone.tuning.candidates import Candidate

NUM_IN_FLIGHT = 8
NUM_DECODED = 24
_MIN_ROUNDS = 3
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one candidate does here.

    Attributes:
        label_ms: one label, its prefix cached: median.
        labels_per_s: with `NUM_IN_FLIGHT` requests in each batch.
        decode_tokens_per_s: of one stream.
        peak_bytes: largest resident size of its process; 0 where the system does not say.
        added_bytes: of that, what loading and running the model added.
        label_logits: of each built-in text.
    """

    load_s: float
    label_ms: float
    labels_per_s: float
    decode_tokens_per_s: float
    peak_bytes: int
    added_bytes: int
    label_logits: list[list[float]]


def measure_apart(candidate: Candidate, *, num_threads: int | None, seconds: float) -> Measurement:
    """Measure a candidate in a new process.

    Args:
        candidate: what; compiled already where it has to be.
        num_threads: the physical cores where None.
        seconds: for each of the three speeds.

    Raises:
        RunError: the process failed; its last words, or the signal that killed it.
    """
    order = {"backend": candidate.backend, "weights": candidate.weights, "path": str(candidate.path)}
    order |= {"num_threads": num_threads, "seconds": seconds}
    done = subprocess.run(
        [sys.executable, "-m", __name__, json.dumps(order)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    lines = done.stdout.splitlines()
    if done.returncode < 0:
        hint = "build it again: make llamacpp" if candidate.backend == "llamacpp" else None
        raise RunError(f"{candidate.name} crashed (signal {-done.returncode}).", hint=hint)
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines()
        raise RunError(f"{candidate.name} failed: {said[-1] if said else f'exit code {done.returncode}'}")
    return Measurement(**json.loads(lines[-1]))


def measure_here(order: dict[str, Any]) -> Measurement:
    """Load a candidate and measure it in this process."""
    before, _ = _memory_bytes()
    start = time.perf_counter()
    model = _load(order)
    load_s = time.perf_counter() - start
    cases = builtin_cases(model.tokenizer, model.template)
    try:
        logits = [score.tolist() for part in _parts(cases) for score in score_cases(model.backend, part)]
        speeds = _measure_speeds(model.backend, cases, order["seconds"])
        _, peak = _memory_bytes()
    finally:
        model.backend.close()
    return Measurement(load_s=load_s, **speeds, peak_bytes=peak, added_bytes=max(0, peak - before), label_logits=logits)


def _load(order: dict[str, Any]) -> LoadedModel:
    options: dict[str, Any] = {}
    if order["backend"] == "onnx":
        options["quantization"] = order["weights"]
    elif order["backend"] == "transformers":
        options["dtype"] = order["weights"]
    return load_model(order["path"], backend=order["backend"], num_threads=order["num_threads"], **options)


def _parts(cases: Sequence[AgreementCase], size: int = 8) -> list[Sequence[AgreementCase]]:
    return [cases[start : start + size] for start in range(0, len(cases), size)]


def _measure_speeds(backend: Backend, cases: Sequence[AgreementCase], seconds: float) -> dict[str, float]:
    """The three speeds, as fields of `Measurement`; all texts of one prompt, which share its prefix."""
    cases = [case for case in cases if case.label_ids == cases[0].label_ids]
    num_shared = _num_common([case.input_ids for case in cases])
    prefix = backend.fork()
    backend.extend([Chunk(sequence=prefix, input_ids=cases[0].input_ids[:num_shared])])
    texts = cycle(cases)

    def labels(num_texts: int) -> None:
        batch = [
            Chunk(
                sequence=backend.fork(prefix),
                input_ids=case.input_ids[num_shared:],
                wanted="token_logits",
                token_ids=case.label_ids,
            )
            for case in islice(texts, num_texts)
        ]
        backend.extend(batch)
        for chunk in batch:
            backend.free(chunk.sequence)

    def decode() -> None:
        sequence = backend.fork(prefix)
        token_id = cases[0].input_ids[num_shared]
        for _ in range(NUM_DECODED):
            token_id = _next_token(backend, sequence, token_id)
        backend.free(sequence)

    label_s = _median_s(lambda: labels(1), seconds)
    batch_s = _median_s(lambda: labels(NUM_IN_FLIGHT), seconds)
    decode_s = _median_s(decode, seconds)
    backend.free(prefix)
    return {
        "label_ms": label_s * 1000,
        "labels_per_s": NUM_IN_FLIGHT / batch_s,
        "decode_tokens_per_s": NUM_DECODED / decode_s,
    }


def _next_token(backend: Backend, sequence: SequenceId, token_id: int) -> int:
    (logits,) = backend.extend([Chunk(sequence=sequence, input_ids=(token_id,), wanted="last_logits")])
    assert logits is not None
    return int(logits.argmax())


def _median_s(work: Callable[[], None], seconds: float) -> float:
    """Seconds that `work` takes, after a round that does not count; at least `_MIN_ROUNDS` more."""
    work()
    rounds: list[float] = []
    end = time.perf_counter() + seconds
    while len(rounds) < _MIN_ROUNDS or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        rounds.append(time.perf_counter() - start)
    return statistics.median(rounds)


def _num_common(prompts: Sequence[Sequence[int]]) -> int:
    """Length of the longest common beginning, leaving at least one id to each."""
    shortest = min(len(prompt) for prompt in prompts) - 1
    return next((i for i in range(shortest) if len({prompt[i] for prompt in prompts}) > 1), shortest)


def _memory_bytes() -> tuple[int, int]:
    """Resident size now, and the largest so far; not `getrusage` on Linux, which begins at the parent's size."""
    if _STATUS.is_file():
        fields = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="ascii").splitlines())
        now, peak = (int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
        return now, peak
    if sys.platform == "win32":
        return 0, 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return peak, peak


def main() -> int:
    """Measure what the first argument orders; exit code 1 and one line on stderr when it fails."""
    try:
        found = measure_here(json.loads(sys.argv[1]))
    except AllInOneError as error:
        sys.stderr.write(error.message + "\n")
        return 1
    sys.stdout.write(json.dumps(asdict(found)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
