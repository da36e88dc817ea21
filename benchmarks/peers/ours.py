"""The product, through its public API; and what only it is asked: the fused reply, its own overhead, the int8 limit."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.peers.serving import Peer, Request, measure, serve

LIMIT_SHAPE = (1024, 2048, 4096)
"""Rows, inner size and columns of the product that measures the machine's int8 limit: large, and in the cache."""


class AllInOnePeer(Peer):
    """`AllInOne.run`, `map` and `reply` are given texts; streams and long chats are given ids, through the engine."""

    distributions = ("qwen-allinone", "onnxruntime")

    def load(self, model: str, threads: int, second_model: str | None) -> None:
        from allinone import AllInOne

        self._threads = threads
        tasks = Path(model).with_name("tasks")
        self._ai = AllInOne.load(model, tasks=tasks, threads=threads, cache=False)
        self._chat: Any = None

    def own_bytes(self) -> int:
        import allinone

        package = Path(allinone.__file__).parent  # a checkout is installed by reference, so no list names its files
        return sum(file.stat().st_size for file in package.rglob("*") if file.is_file() and file.suffix != ".pyc")

    def label(self, request: Request, token_ids: Sequence[int]) -> None:
        self._ai.run(request["task"], request["text"])

    def labels(self, requests: Sequence[Request], token_ids: Sequence[int]) -> None:
        tasks = {one["task"] for one in requests}
        if len(tasks) == 1:
            list(self._ai.map(tasks.pop(), [one["text"] for one in requests], window=len(requests)))
            return
        with ThreadPoolExecutor(len(requests)) as threads:
            list(threads.map(lambda one: self._ai.run(one["task"], one["text"]), requests))

    def next_tokens(self, requests: Sequence[Request]) -> list[int]:
        """Over the whole vocabulary, as the others: the engine itself never says an id that has no text, as most of
        these have. Nothing else runs meanwhile, so the backend is asked here.
        """
        from allinone.backends.base import Chunk

        backend, found = self._ai.model.backend, []
        for request in requests:
            sequence = backend.fork()
            backend.extend([Chunk(sequence=sequence, input_ids=request["prefix"])])
            (logits,) = backend.extend([Chunk(sequence=sequence, input_ids=request["ids"], wanted="last_logits")])
            found.append(int(logits.argmax()))
            backend.free(sequence)
        return found

    def decode(self, requests: Sequence[Request], num_tokens: int) -> list[list[float]]:
        with ThreadPoolExecutor(len(requests)) as threads:
            return [times for _, times in threads.map(lambda one: self._generate(one, num_tokens), requests)]

    def first_token(self, prompt: Sequence[int]) -> None:
        """A chat is a session: what it holds of the prompt stays, the rest is taken back."""
        from allinone.engine.requests import GenerateRequest, SamplingParams

        if self._chat is None:
            self._chat = self._ai.engine.open_session()
        held = self._chat.ids
        differing = (index for index, (a, b) in enumerate(zip(held, prompt, strict=False)) if a != b)
        num_common = next(differing, min(len(held), len(prompt) - 1))
        if num_common < len(held):
            self._chat.truncate(num_common)
        sampling = SamplingParams(max_tokens=1)
        request = GenerateRequest(session=self._chat, input_ids=tuple(prompt[num_common:]), sampling=sampling)
        next(iter(self._ai.engine.stream(request)))

    def forget_chat(self) -> None:
        if self._chat is not None:
            self._chat.close()
        self._chat = None

    def time_reply(self, *, pairs: Sequence[Sequence[Request]], token_ids: Sequence[int]) -> dict[str, Any]:
        """The first token of a reply that knows the mood: in one pass (`reply`), and as label and then reply."""
        begun: list[tuple[Any, Iterator[Any]]] = []

        def begin(stream: Any) -> None:
            begun.append((stream, iter(stream)))
            next(begun[0][1])

        def fused(text: str) -> None:
            begin(self._ai.reply(text))

        def apart(text: str) -> None:
            mood = self._ai.run("sentiment", text).label
            begin(self._ai.stream("chat", text, mood=mood))

        def end() -> None:
            """Wait until nothing runs any more; this is timed too, and counted nowhere."""
            stream, _ = begun.pop()
            stream.cancel()
            stream.result()

        calls: list[Callable[[], None]] = []
        for pair in pairs:
            text = pair[1]["text"]
            calls += [lambda text=text: fused(text), end, lambda text=text: apart(text), end]
        spent = [0.0, *measure(calls)]  # the first is not counted
        return {"fused_seconds": spent[4::4], "apart_seconds": spent[6::4]}

    def time_overhead(self, *, requests: Sequence[Request]) -> dict[str, Any]:
        """What a label takes in all, in `Backend.extend`, and in ONNX Runtime itself, on the engine's thread."""
        backend: Any = self._ai.model.backend
        inside = {"extend": 0.0, "engine": 0.0}

        def watch(owner: Any, name: str, key: str) -> Callable[[], None]:
            call = getattr(owner, name)

            def timed(*arguments: Any) -> Any:
                start = time.perf_counter()
                try:
                    return call(*arguments)
                finally:
                    inside[key] += time.perf_counter() - start

            setattr(owner, name, timed)
            return lambda: delattr(owner, name)

        self._ai.run(requests[0]["task"], requests[0]["text"])
        undo = [watch(backend, "extend", "extend"), watch(backend._runner, "run", "engine")]
        try:
            rows = []
            for one in requests[1:]:
                inside.update(extend=0.0, engine=0.0)
                start = time.perf_counter()
                self._ai.run(one["task"], one["text"])
                rows.append((time.perf_counter() - start, inside["extend"], inside["engine"]))
        finally:
            for step in undo:
                step()
        whole, extend, engine = (statistics.median(column) for column in zip(*rows, strict=True))
        return {"whole_s": whole, "extend_s": extend, "engine_s": engine}

    def time_limit(self, *, repeats: int) -> dict[str, Any]:
        """Int8 operations per second of one large `MatMulInteger`, a multiplication and an addition being two."""
        from allinone.backends.onnx.kernels import detect_cpu

        product = _int8_product(self._threads, is_signed=detect_cpu().weight_type == "int8")
        rows, inner, columns = LIMIT_SHAPE
        seconds = measure([product] * (repeats + 1))
        return {"ops_per_s": 2 * rows * inner * columns / min(seconds)}

    def _generate(self, request: Request, num_tokens: int) -> tuple[list[int], list[float]]:
        from allinone.engine.requests import GenerateRequest, SamplingParams

        stream = self._ai.engine.stream(
            GenerateRequest(
                prefix_ids=tuple(request["prefix"]),
                input_ids=tuple(request["ids"]),
                sampling=SamplingParams(max_tokens=num_tokens),
            )
        )
        ids, times = [], []
        for event in stream:
            if event.token_id is not None:
                ids.append(event.token_id)
                times.append(time.perf_counter())
        return ids, times


def _int8_product(threads: int, *, is_signed: bool) -> Callable[[], object]:
    """A product as the product's own graph has them: uint8 activations times int8 weights known beforehand."""
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    rows, inner, columns = LIMIT_SHAPE
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (inner, columns), dtype=np.int8)
    weight_zero = np.array(0, np.int8)
    if not is_signed:
        weight, weight_zero = (weight.astype(np.int16) + 128).astype(np.uint8), np.array(128, np.uint8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["left", "weight", "left_zero", "weight_zero"], ["product"])],
        "limit",
        [helper.make_tensor_value_info("left", TensorProto.UINT8, [rows, inner])],
        [helper.make_tensor_value_info("product", TensorProto.INT32, [rows, columns])],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.array(128, np.uint8), "left_zero"),
            numpy_helper.from_array(weight_zero, "weight_zero"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    left = rng.integers(0, 256, (rows, inner), dtype=np.uint8)
    return lambda: session.run(None, {"left": left})


if __name__ == "__main__":
    serve(AllInOnePeer())
