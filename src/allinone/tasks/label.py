"""Label tasks: which token ids say a label, and how scores become a result. A label is read, never generated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from allinone.engine.requests import LabelScores
from allinone.errors import VerbalizerError
from allinone.prompts.prompt_file import LabelSpec
from allinone.tasks.encoder import PromptEncoder


def verbalize(
    labels: Sequence[LabelSpec], encoder: PromptEncoder, *, of_operator: bool = False, path: str | None = None
) -> dict[str, tuple[int, ...]]:
    """Token ids of each label at the answer position, in the order given.

    Args:
        labels: to choose from.
        encoder: the model's.
        of_operator: they stand so in the prompt file; their ids are kept.
        path: of the prompt file, for errors.

    Raises:
        VerbalizerError: no labels, or two labels that this model's tokenizer cannot tell apart.
    """
    if not labels:
        raise VerbalizerError("There are no labels to choose from.", path=path, key="allinone.labels")
    label_ids: dict[str, tuple[int, ...]] = {}
    owner: dict[tuple[int, ...], str] = {}
    for spec in labels:
        ids = (
            encoder.operator_ids(spec.label, control=False)
            if of_operator
            else tuple(encoder.tokenizer.tokenize(spec.label, control=False))
        )
        if not ids:
            raise VerbalizerError("A label is empty.", path=path, key="allinone.labels")
        if ids in owner:
            raise VerbalizerError(
                f"Labels {owner[ids]!r} and {spec.label!r} have the same token ids.", path=path, key="allinone.labels"
            )
        owner[ids] = spec.label
        label_ids[spec.label] = ids
    return label_ids


def read(labels: Sequence[LabelSpec], scores: LabelScores, temperature: float) -> dict[str, Any]:
    """The fields of a `Result` that a label task fills; `temperature` is the model's own for the task."""
    probs = scores.probs(temperature)
    best = next(spec for spec in labels if spec.label == scores.best)
    return {
        "label": best.label,
        "name": best.name,
        "emoji": best.emoji,
        "probs": probs,
        "p_max": probs[best.label],
    }
