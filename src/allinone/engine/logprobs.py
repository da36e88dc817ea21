"""How likely the model itself found a token: log-softmax of its logits, before temperature, penalties and constraints.

Logits in, nats out. Computed for streams that ask for it; `running_generate` does the asking.
"""

from __future__ import annotations

import numpy as np

from allinone.backends.base import FloatArray


def token_logprobs(
    logits: FloatArray, token_id: int, num_likeliest: int
) -> tuple[float, tuple[tuple[int, float], ...]]:
    """Log-probability of one token, and the likeliest tokens with theirs.

    Args:
        logits: float32 (vocab_size,), as the backend gave them.
        token_id: the token that was chosen.
        num_likeliest: how many others to name; at most the vocabulary is.

    Returns:
        Nats of `token_id`, and (token id, nats), likeliest first, ties by id; the chosen one may be among them.
    """
    values = logits.astype(np.float64)
    peak = values.max()
    normaliser = peak + np.log(np.exp(values - peak).sum())
    num_likeliest = min(num_likeliest, len(values))
    if num_likeliest == 0:
        return float(values[token_id] - normaliser), ()
    floor = np.partition(values, len(values) - num_likeliest)[len(values) - num_likeliest]
    ids = np.flatnonzero(values >= floor)
    ids = ids[np.argsort(-values[ids], kind="stable")][:num_likeliest]
    likeliest = tuple((int(one), float(values[one] - normaliser)) for one in ids)
    return float(values[token_id] - normaliser), likeliest
