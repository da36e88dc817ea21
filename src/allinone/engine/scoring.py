"""Labels are scored, never generated: the trie of their token ids, and their log-probabilities from logits.

Knows no backend and no request: `LabelTrie` says which continuations must be teacher-forced, the engine does it, and
`label_logprobs` reads the numbers. Why this definition: docs/decisions/0006-label-scoring.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from allinone.backends.base import FloatArray
from allinone.errors import VerbalizerError

Path: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTrie:
    """Label ids as a trie rooted at the answer position.

    Attributes:
        paths: label -> its ids, in task order.
        ended: labels that are a proper prefix of another one; they count only when the answer ends there, so the
            probability of a stop token belongs to them.
        first_ids: distinct first ids, in order: all that is wanted of the logits at the answer position.
        branches: the continuations to teacher-force after the answer position; every inner node that any label
            passes through lies on one of them. Empty when every label is one id.
    """

    paths: Mapping[str, Path]
    ended: frozenset[str]
    first_ids: tuple[int, ...]
    branches: tuple[Path, ...]

    @classmethod
    def build(cls, label_ids: Mapping[str, Iterable[int]]) -> LabelTrie:
        """The trie of these labels.

        Raises:
            VerbalizerError: no labels, a label without ids, or two labels with the same ids.
        """
        paths = {label: tuple(ids) for label, ids in label_ids.items()}
        if not paths:
            raise VerbalizerError("There are no labels to choose from.", hint="Give at least one label.")
        owners: dict[Path, str] = {}
        for label, path in paths.items():
            if not path:
                raise VerbalizerError(f"Label {label!r} has no token ids.", hint="An empty label cannot be scored.")
            if path in owners:
                raise VerbalizerError(
                    f"Labels {owners[path]!r} and {label!r} have the same token ids {path}.", hint="Rename one of them."
                )
            owners[path] = label
        inner = {path[:depth] for path in paths.values() for depth in range(1, len(path))}
        ended = frozenset(label for label, path in paths.items() if path in inner)
        branches = sorted(node for node in inner if not any(node == other[: len(node)] for other in inner - {node}))
        return cls(
            paths=paths,
            ended=ended,
            first_ids=tuple(dict.fromkeys(path[0] for path in paths.values())),
            branches=tuple(branches),
        )


def label_logprobs(
    trie: LabelTrie, first_logits: FloatArray, branch_logits: Mapping[Path, FloatArray], stop_ids: Iterable[int]
) -> dict[str, float]:
    """Log-probability of each label, given that the answer is one of them.

    The probability of a label is the model's own probability of its ids one after the other, over the full
    vocabulary; of a label that is a proper prefix of another, times that of any stop token after it. These events
    exclude each other, so dividing by their sum is conditioning on "the answer is one of the labels". What the
    answer position contributes to all labels alike (its normaliser) cancels and is never computed: for labels of one
    id each the result is the softmax of their logits.

    Args:
        trie: of the labels.
        first_logits: float32 (len(trie.first_ids),), at the answer position.
        branch_logits: per branch, float32 (len(branch), vocab_size), after each of its ids.
        stop_ids: ids that end an answer.

    Returns:
        label -> nats, in task order; their exponentials sum to 1.
    Source: docs/decisions/0006-label-scoring.md
    """
    first = dict(zip(trie.first_ids, first_logits.astype(np.float64), strict=True))
    stop = np.array(sorted(stop_ids), dtype=np.int64)
    after = _logits_after_nodes(trie, branch_logits)
    normalisers = {node: _log_sum_exp(logits) for node, logits in after.items()}
    totals: list[float] = []
    for label, path in trie.paths.items():
        total = float(first[path[0]])
        for depth in range(1, len(path)):
            node = path[:depth]
            total += float(after[node][path[depth]]) - normalisers[node]
        if label in trie.ended:
            total += _log_sum_exp(after[path][stop]) - normalisers[path]
        totals.append(total)
    values = np.array(totals, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        values -= _log_sum_exp(values)
    return dict(zip(trie.paths, values.tolist(), strict=True))


def _logits_after_nodes(trie: LabelTrie, branch_logits: Mapping[Path, FloatArray]) -> dict[Path, NDArray[np.float64]]:
    """Inner node -> float64 (vocab_size,); a node on several branches takes the first in `trie.branches`."""
    after: dict[Path, NDArray[np.float64]] = {}
    for branch in trie.branches:
        for depth in range(1, len(branch) + 1):
            if branch[:depth] not in after:
                after[branch[:depth]] = branch_logits[branch][depth - 1].astype(np.float64)
    return after


def _log_sum_exp(values: NDArray[np.float64]) -> float:
    with np.errstate(invalid="ignore"):  # all -inf, or NaN: the caller refuses the result
        peak = values.max()
        return float(peak + np.log(np.exp(values - peak).sum()))
