"""Numbers for monitors: requests, times, tokens and the engine's own counts, in a Prometheus registry of this server.

Owns the names of the metrics. Labels are route templates, statuses and the number of the process: no text, no owner.
Where several processes share a port each leaves its numbers in a folder, so that whichever is asked answers for all.
Above: `guard.py` and the API modules count, `health.py` shows. Below: the runtime's statistics.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from allinone.engine.stats import EngineStats
from allinone.runtime import AllInOne
from allinone.server.settings import ServerSettings
from allinone.types import Result, Usage

ENGINE_COUNTERS = frozenset({
    "num_steps", "num_prefilled_tokens", "num_decoded_tokens", "num_draft_tokens", "num_accepted_tokens", "num_chunks",
    "prefix_hits", "prefix_misses", "prefix_hit_tokens", "prefix_evictions", "step_s", "queue_s", "num_ended",
    "num_failed", "num_cancelled",
})  # fmt: skip
"""Fields of `EngineStats` that only grow; all others are gauges."""

_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_RECENT = 512
_SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?P<labels>\{)?")


class Metrics:
    """Counts of one server process.

    Args:
        ai: whose engine and result cache are shown.
        settings: says which process this is, and where the others leave their numbers.
    """

    def __init__(self, ai: AllInOne, settings: ServerSettings) -> None:
        self._settings = settings
        self.registry = CollectorRegistry()
        self.registry.register(_EngineCollector(ai))
        self._requests = Counter(
            "allinone_requests", "HTTP requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "allinone_request_seconds",
            "Time from the request's head to the end of its response.",
            ("route",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._first_token = Histogram(
            "allinone_first_token_seconds", "Time to the first token.", buckets=_BUCKETS, registry=self.registry
        )
        self._tokens = Counter("allinone_tokens", "Tokens of answers.", ("kind",), registry=self.registry)
        self.in_flight = Gauge("allinone_requests_in_flight", "Requests being answered.", registry=self.registry)
        self.label_times: deque[float] = deque(maxlen=_RECENT)
        self.first_token_times: deque[float] = deque(maxlen=_RECENT)

    def count_request(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """One request was answered."""
        known = method if method in _METHODS else "OTHER"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_tokens(self, usage: Usage) -> None:
        """The tokens of one answer."""
        self._tokens.labels("prompt").inc(usage.num_prompt_tokens)
        self._tokens.labels("cached").inc(usage.num_cached_tokens)
        self._tokens.labels("output").inc(usage.num_output_tokens)

    def count_first_token(self, ttft_s: float) -> None:
        """A text or a reply began after so long."""
        self._first_token.observe(ttft_s)
        self.first_token_times.append(ttft_s)

    def count_result(self, result: Result) -> None:
        """One answer of a task: its tokens, and how long it took if it was computed."""
        if result.cached:
            return
        self.count_tokens(result.usage)
        if result.kind == "label":
            self.label_times.append(result.timings.total_s)
        else:
            self.count_first_token(result.timings.ttft_s)

    def latency(self) -> dict[str, float | None]:
        """Percentiles of the last answers, in seconds; None before the first."""
        return {
            f"{name}_p{rank}_s": float(np.percentile(times, rank)) if times else None
            for name, times in (("label", self.label_times), ("ttft", self.first_token_times))
            for rank in (50, 95)
        }

    def render(self) -> bytes:
        """The text format of Prometheus: this process, and what the other ones left within the last seconds."""
        own = generate_latest(self.registry)
        folder = self._settings.metrics_dir
        if folder is None:
            return own
        texts = {self._settings.worker: own.decode()}
        for path in Path(folder).glob("*.prom"):
            if int(path.stem) != self._settings.worker:
                texts[int(path.stem)] = path.read_text(encoding="utf-8")
        return _merge(texts).encode()

    def leave(self) -> None:
        """Write this process's numbers where the others look for them. Blocks."""
        if self._settings.metrics_dir is not None:
            path = Path(self._settings.metrics_dir) / f"{self._settings.worker}.prom"
            draft = path.with_suffix(".new")
            draft.write_bytes(generate_latest(self.registry))
            os.replace(draft, path)


class _EngineCollector(Collector):
    """The runtime's own counts at the moment they are asked for."""

    def __init__(self, ai: AllInOne) -> None:
        self._ai = ai

    def collect(self) -> Iterator[Metric]:
        """Every field of the engine's statistics, and the result cache."""
        stats = self._ai.stats()
        for field in fields(EngineStats):
            yield _family(f"allinone_engine_{_prometheus_name(field.name)}", field.name, getattr(stats, field.name))
        results = self._ai.results.stats()
        yield CounterMetricFamily("allinone_result_cache_hits", "Answers found in the result cache.", results.hits)
        yield CounterMetricFamily("allinone_result_cache_misses", "Answers not found there.", results.misses)
        yield GaugeMetricFamily("allinone_result_cache_bytes", "Size of the result cache.", results.num_bytes)


def _family(name: str, field: str, value: float) -> Metric:
    kind = CounterMetricFamily if field in ENGINE_COUNTERS else GaugeMetricFamily
    return kind(name, f"EngineStats.{field}", value)


def _prometheus_name(field: str) -> str:
    """Our `num_steps` and `step_s` as Prometheus writes them: `steps`, `step_seconds`."""
    name = field.removeprefix("num_")
    return f"{name.removesuffix('_s')}_seconds" if name.endswith("_s") and not name.endswith("_per_s") else name


def _merge(texts: dict[int, str]) -> str:
    """One exposition from those of several processes, each sample labelled with its process."""
    order: list[str] = []
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for worker in sorted(texts):
        family = ""
        for line in texts[worker].splitlines():
            if line.startswith("#"):
                family = line.split(" ", 3)[2]
                if family not in heads:
                    order.append(family)
                known = heads.setdefault(family, [])
                if line not in known:
                    known.append(line)
            else:
                samples.setdefault(family, []).append(_label(line, worker))
    return "".join(f"{line}\n" for family in order for line in (*heads[family], *samples.get(family, ())))


def _label(sample: str, worker: int) -> str:
    match = _SAMPLE.match(sample)
    assert match is not None, "prometheus_client writes a name first"
    rest = sample[match.end() :]
    label = f'{{worker="{worker}"'
    return f"{match['name']}{label},{rest}" if match["labels"] else f"{match['name']}{label}}}{rest}"
