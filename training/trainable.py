"""The training sets without the texts that are kept out of training (see `heldout`)."""

from functools import lru_cache
from pathlib import Path

from training.heldout import is_heldout
from training.sources import Record, load_train, t0_reviews


@lru_cache(maxsize=64)
def _kept(data: Path, name: str, limit: int) -> tuple[Record, ...]:
    return tuple(r for r in load_train(data, name, limit) if not is_heldout(str(r.get("text", ""))))


def load_trainable(data: Path, name: str, limit: int = 10**9) -> list[Record]:
    """Records of `train/NAME.*.jsonl.xz` (of the first `limit`) whose text may be trained on."""
    return list(_kept(data, name, limit))


@lru_cache(maxsize=1)
def trainable_reviews(data: Path) -> list[tuple[str, str]]:
    """(review, "pos" | "neg") found inside the T0 prompts that may be trained on."""
    return [(text, label) for text, label in t0_reviews(data) if not is_heldout(text)]
