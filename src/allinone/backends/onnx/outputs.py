"""What is wanted of a call, and which rows of the graph's outputs answer it.

Owns the way from `Chunk.wanted` to row numbers and back to arrays. Knows no attention and no cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from allinone.backends.base import Chunk, FloatArray, Wanted
from allinone.backends.onnx.planning import Piece

_Output = Literal["logits", "token_logits", "hidden"]
_READ_FROM: dict[Wanted, _Output] = {
    "last_logits": "logits",
    "tail_logits": "logits",
    "token_logits": "token_logits",
    "last_hidden": "hidden",
}


class WantedRows:
    """The packed tokens of one call whose outputs are wanted.

    Attributes:
        tokens: packed token numbers, in the order of the pieces; rows of the output `hidden`.
        logits_rows: rows of `hidden` whose whole logits are wanted.
        token_logits_rows: rows of `hidden` of which only the logits of `token_ids` are wanted.
        token_ids: the ids asked for by any chunk.
    """

    def __init__(self, pieces: Sequence[Piece], batch: Sequence[Chunk], *, has_token_logits: bool) -> None:
        """Collect rows; without an output `token_logits` those are picked from whole logits."""
        self.tokens: list[int] = []
        self.logits_rows: list[int] = []
        self.token_logits_rows: list[int] = []
        self._answers: list[tuple[Chunk, _Output, slice] | None] = []
        ids: dict[int, None] = {}
        start = 0
        for piece in pieces:
            stop, chunk = start + len(piece.input_ids), batch[piece.chunk]
            num_rows = min(chunk.num_rows - piece.num_left, len(piece.input_ids))
            if chunk.wanted != "nothing" and num_rows > 0:
                output = _READ_FROM[chunk.wanted]
                if output == "token_logits" and not has_token_logits:
                    output = "logits"
                elif output == "token_logits":
                    ids |= dict.fromkeys(chunk.token_ids)
                self._answers.append((chunk, output, self._add_rows(output, range(stop - num_rows, stop))))
            else:
                self._answers.append(None)
            start = stop
        self.token_ids = tuple(ids)

    def _add_rows(self, output: _Output, tokens: range) -> slice:
        """Note rows of an output; returns where they will be."""
        rows = range(len(self.tokens), len(self.tokens) + len(tokens))
        self.tokens.extend(tokens)
        if output == "hidden":
            return slice(rows.start, rows.stop)
        listed = self.logits_rows if output == "logits" else self.token_logits_rows
        listed.extend(rows)
        return slice(len(listed) - len(rows), len(listed))

    def pick(self, results: Mapping[str, FloatArray]) -> list[FloatArray | None]:
        """The answer to each piece; None where nothing was wanted."""
        column_of = {token_id: column for column, token_id in enumerate(self.token_ids)}
        answers: list[FloatArray | None] = []
        for answer in self._answers:
            if answer is None:
                answers.append(None)
                continue
            chunk, output, rows = answer
            found = results[output][rows]
            if chunk.wanted == "token_logits":
                picked = chunk.token_ids if output == "logits" else [column_of[one] for one in chunk.token_ids]
                found = found[:, list(picked)]
            answers.append(found if chunk.wanted == "tail_logits" else found[0])
        return answers
