"""The default backend: ONNX Runtime on a graph of our own, int8 on the CPU.

Owns sequences and calls: from a batch of chunks to inputs of the graph, and from its outputs to answers and caches.
Below: `planning.py` (which tokens share a call), `attention_grid.py` (indices), `kv_cache.py` (memory), `runner.py`.
Above: `engine/`, through the `Backend` protocol.

Invariant: what a sequence computes is a function of its own ids and of how they were split into chunks, bit for bit:
neighbours, the order of a batch, forks and moved caches change nothing. docs/decisions/0002-onnx-graph.md says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allinone.backends.base import BackendInfo, Chunk, FloatArray, SequenceId, check_batch
from allinone.backends.cpu import detect_cpu
from allinone.backends.onnx.attention_grid import (
    NO_DRAFT_PLACES,
    AttentionGrid,
    Placement,
    RotaryTable,
    attention_feeds,
    draft_places,
)
from allinone.backends.onnx.kernels import require_exact_int8
from allinone.backends.onnx.kv_cache import (
    WIDTH,
    CacheShape,
    Cell,
    KVBlock,
    LayerCache,
    Prefix,
    PrefixStacks,
    SequenceCache,
    gather_block,
)
from allinone.backends.onnx.linear import ACTIVATION_ZERO
from allinone.backends.onnx.manifest import EMBEDDINGS_FILE, GRAPH_FILE, Manifest, read_manifest
from allinone.backends.onnx.outputs import WantedRows
from allinone.backends.onnx.planning import Piece, cut_into_rounds, group_by_prefix, plan_calls
from allinone.backends.onnx.row_files import HeadColumns, RowFile
from allinone.backends.onnx.runner import GraphRunner
from allinone.errors import InvalidInput, RunError

_IS_DRAFT = {is_draft: np.array(is_draft) for is_draft in (False, True)}
MAX_IDLE_SHARE = 0.25
"""A block is used in place while at most this share of its cells sits idle."""


@dataclass(slots=True, kw_only=True)
class _Call:
    """Where the pieces of one call sit, and the memory they read."""

    pieces: Sequence[Piece]
    placements: list[Placement]
    prefixes: list[Prefix | None]
    grid: AttentionGrid
    block: KVBlock | None

    @property
    def is_draft(self) -> bool:
        """Its placements are tokens of one sequence; a draft has a call of its own."""
        return self.pieces[0].is_draft


class OnnxBackend:
    """One compiled model behind the five methods of `Backend`. Not thread-safe."""

    def __init__(self, folder: Path, manifest: Manifest, *, num_threads: int) -> None:
        """Use `OnnxBackend.load`."""
        self._manifest, self._config = manifest, manifest.shape.to_config()
        config = self._config
        self._shape = CacheShape(num_layers=config.num_layers, num_heads=config.num_kv_heads, head_dim=config.head_dim)
        self._runner: GraphRunner | None = GraphRunner(folder / GRAPH_FILE, num_threads=num_threads)
        self._embeddings = RowFile(folder / EMBEDDINGS_FILE, manifest)
        self._is_float = manifest.weight_type == "float32"
        self._head = None if self._is_float else HeadColumns(folder, manifest)
        self._rotary = RotaryTable(config)
        self._stacks = PrefixStacks(self._shape)
        self._scratch: list[LayerCache] = []
        self._empty_past = LayerCache.of(np.empty(self._shape.block_size(0, 0, 0), np.float32))
        self._sequences: dict[SequenceId, SequenceCache] = {}
        self._next_id = 1
        self._num_threads = num_threads

    @classmethod
    def load(cls, folder: Path, *, num_threads: int | None = None) -> OnnxBackend:
        """Open a compiled model folder.

        Args:
            folder: what `compile_model` wrote.
            num_threads: threads of the matrix products; physical cores if None.

        Raises:
            WeightsNotFound: no compiled model is there.
            WeightsMismatch: damaged, or of another format version.
            ModelError: its int8 weights do not suit this CPU.
        """
        manifest = read_manifest(folder)
        if manifest.weight_type != "float32":
            require_exact_int8(manifest.weight_type)
        return cls(folder, manifest, num_threads=num_threads or detect_cpu().default_threads)

    @property
    def manifest(self) -> Manifest:
        """What the compiled folder says about itself."""
        return self._manifest

    @property
    def info(self) -> BackendInfo:
        """Static description."""
        return BackendInfo(
            name="onnx",
            model=self._manifest.model,
            quantization=self._manifest.quantization,
            vocab_size=self._config.vocab_size,
            hidden_size=self._config.hidden_size,
            max_context_tokens=self._config.max_context_tokens,
            kv_bytes_per_token=self._shape.bytes_per_token,
            num_threads=self._num_threads,
            has_exact_drafts=True,
        )

    def extend(self, batch: Sequence[Chunk]) -> list[FloatArray | None]:
        """Append each chunk's ids to its sequence; outputs in the order of the batch.

        Chunks run together in as few passes as their shapes allow: single steps in one, wider chunks in others.

        Raises:
            ContextLengthExceeded: a sequence would grow too long. Nothing is changed then.
            InvalidInput: an unknown sequence, one given twice, no ids, or an id outside the vocabulary.
        """
        check_batch(batch, self.info, self.num_cached_tokens)
        caches = [self._sequences[chunk.sequence] for chunk in batch]
        if not batch:
            return []
        outputs: list[list[FloatArray]] = [[] for _ in batch]
        chunks = [(cache, chunk.input_ids) for cache, chunk in zip(caches, batch, strict=True)]
        drafts = {index for index, chunk in enumerate(batch) if chunk.is_draft}
        for pieces in cut_into_rounds(chunks, drafts):
            for call in plan_calls(pieces):
                for piece, output in zip(call, self._run(call, batch), strict=True):
                    if output is not None:
                        outputs[piece.chunk].append(output)
        return [None if not parts else parts[0] if len(parts) == 1 else np.concatenate(parts) for parts in outputs]

    def fork(self, source: SequenceId | None = None) -> SequenceId:
        """A new sequence with what `source` holds, or an empty one. Costs nothing: memory is shared until written."""
        cache = SequenceCache() if source is None else self._require(source).fork()
        sequence = SequenceId(self._next_id)
        self._next_id += 1
        self._sequences[sequence] = cache
        return sequence

    def trim(self, sequence: SequenceId, num_tokens: int) -> None:
        """Forget all but the first `num_tokens` tokens.

        Raises:
            InvalidInput: the sequence does not hold that many.
        """
        cache = self._require(sequence)
        if not 0 <= num_tokens <= cache.num_tokens:
            raise InvalidInput(f"Cannot trim a sequence of {cache.num_tokens} tokens to {num_tokens}")
        cache.trim(num_tokens)
        self._stacks.forget_unused()
        self._shape.arena.settle()

    def free(self, sequence: SequenceId) -> None:
        """Give a sequence back."""
        self._require(sequence).free()
        del self._sequences[sequence]
        self._stacks.forget_unused()
        self._shape.arena.settle()

    def num_cached_tokens(self, sequence: SequenceId) -> int:
        """Number of tokens the sequence holds."""
        return self._require(sequence).num_tokens

    def num_sequences(self) -> int:
        """Number of live sequences."""
        return len(self._sequences)

    def close(self) -> None:
        """Release the model. Idempotent."""
        for sequence in list(self._sequences):
            self.free(sequence)
        self._runner = None
        self._embeddings.close()
        if self._head is not None:
            self._head.close()

    def _require(self, sequence: SequenceId) -> SequenceCache:
        if sequence not in self._sequences:
            raise InvalidInput(f"No sequence {sequence}: it was freed or never existed")
        return self._sequences[sequence]

    def _run(self, pieces: Sequence[Piece], batch: Sequence[Chunk]) -> list[FloatArray | None]:
        """One call of the graph; outputs in the order of `pieces`."""
        if self._runner is None:
            raise RunError("The model was closed")
        call = self._place(pieces)
        wanted = WantedRows(pieces, batch, has_token_logits=not self._is_float)
        feeds = self._feeds(call, wanted)
        new_layers = self._make_room(call)
        results: dict[str, FloatArray] = {
            "hidden": np.empty((len(feeds["wanted"]), self._config.hidden_size), np.float32),
            "logits": np.empty((len(feeds["logits_rows"]), self._config.vocab_size), np.float32),
        }
        if not self._is_float:
            results["token_logits"] = np.empty((len(wanted.token_logits_rows), len(wanted.token_ids)), np.float32)
        caches = {f"new_key.{i}": new.key for i, new in enumerate(new_layers)}
        caches |= {f"new_value.{i}": new.value for i, new in enumerate(new_layers)}
        self._runner.run(feeds, results | caches)
        self._append(call, new_layers)
        return wanted.pick(results)

    def _place(self, pieces: Sequence[Piece]) -> _Call:
        """Seats for the pieces; own pasts are moved side by side unless they already sit so."""
        if pieces[0].is_draft:
            return self._place_draft(pieces[0])
        block = _block_in_place(pieces)
        if block is not None:
            seats = [(piece.cache.cell.group, piece.cache.cell.member) for piece in pieces if piece.cache.cell]
            num_groups, num_members = block.num_groups, block.num_members
            prefixes: list[Prefix | None] = [None] * num_groups
            for piece, (group, _) in zip(pieces, seats, strict=True):
                prefixes[group] = piece.cache.prefix
        else:
            groups = group_by_prefix(pieces)
            seat_of = {one.chunk: (g, m) for g, (_, row) in enumerate(groups) for m, one in enumerate(row)}
            seats = [seat_of[piece.chunk] for piece in pieces]
            num_groups, num_members = len(groups), max(len(row) for _, row in groups)
            prefixes = [prefix for prefix, _ in groups]
            if any(piece.cache.num_own_tokens for piece in pieces):
                table: list[list[SequenceCache | None]] = [[None] * num_members for _ in range(num_groups)]
                for piece, (group, member) in zip(pieces, seats, strict=True):
                    table[group][member] = piece.cache
                longest = max(len(piece.input_ids) for piece in pieces)
                block = gather_block(self._shape, table, longest)
        placements = [
            Placement(cache=piece.cache, input_ids=piece.input_ids, group=group, member=member)
            for piece, (group, member) in zip(pieces, seats, strict=True)
        ]
        grid = AttentionGrid.around(
            placements,
            num_groups=num_groups,
            num_members=num_members,
            prefix_width=max((prefix.width for prefix in prefixes if prefix is not None), default=0),
            past_width=block.capacity if block is not None else 0,
        )
        return _Call(pieces=pieces, placements=placements, prefixes=prefixes, grid=grid, block=block)

    def _place_draft(self, piece: Piece) -> _Call:
        """A seat for each token, as if they were sequences; all read the past of the one that they belong to."""
        cache, num_tokens = piece.cache, len(piece.input_ids)
        block = _block_in_place([piece]) or gather_block(self._shape, [[cache]], num_tokens)
        placements = [
            Placement(cache=cache, input_ids=(token_id,), group=0, member=place, num_ahead=place)
            for place, token_id in enumerate(piece.input_ids)
        ]
        grid = AttentionGrid.around(
            placements,
            num_groups=1,
            num_members=num_tokens,
            prefix_width=0 if cache.prefix is None else cache.prefix.width,
            past_width=block.capacity,
        )
        return _Call(pieces=[piece], placements=placements, prefixes=[cache.prefix], grid=grid, block=block)

    def _make_room(self, call: _Call) -> list[LayerCache]:
        """Where the graph writes new keys and values. They stay there, unless they are copied into a block anyway."""
        grid = call.grid
        size = self._shape.block_size(grid.num_groups, grid.num_members, grid.num_steps)
        if call.block is not None and self._scratch and self._scratch[0].both.shape == size:
            return self._scratch
        cells = grid.num_groups, grid.num_members, grid.num_steps
        layers = [self._shape.new_layer(*cells) for _ in range(self._shape.num_layers)]
        self._scratch = layers if call.block is not None and grid.num_steps == 1 else []
        return layers

    def _feeds(self, call: _Call, wanted: WantedRows) -> dict[str, NDArray[Any]]:
        """Every input of the graph."""
        feeds = attention_feeds(self._config, call.grid, call.placements)
        feeds["is_draft"], feeds["draft_places"] = _IS_DRAFT[call.is_draft], NO_DRAFT_PLACES
        if call.is_draft:
            num_past = call.pieces[0].cache.num_own_tokens
            feeds["draft_places"] = draft_places(self._config.num_kv_heads, num_past, len(call.placements))
        input_ids = np.concatenate([np.asarray(piece.input_ids, np.int64) for piece in call.pieces])
        positions = np.concatenate([piece.cache.num_tokens + np.arange(len(piece.input_ids)) for piece in call.pieces])
        tokens, logits_rows = wanted.tokens, wanted.logits_rows
        if self._is_float:  # a float product of one row is summed in another order: never less than two rows
            input_ids, positions, feeds["attended_rows"] = (
                _at_least_two(rows) for rows in (input_ids, positions, feeds["attended_rows"])
            )
            tokens, logits_rows = _at_least_two_or_none(tokens), _at_least_two_or_none(logits_rows)
        tokens = tokens or [0]  # ONNX Runtime cannot reduce over no rows
        cos, sin = self._rotary.rows(positions)
        feeds["embeddings"] = self._embeddings.look_up(input_ids)
        feeds["cos"], feeds["sin"], feeds["token_index"] = cos, sin, np.arange(len(input_ids))[None]
        feeds["wanted"] = np.array(tokens, np.int64)
        feeds["wanted_attended_rows"] = feeds["attended_rows"][feeds["wanted"]]
        feeds["logits_rows"] = np.array(logits_rows, np.int64)
        if self._head is not None:
            feeds["token_logits_rows"] = np.array(wanted.token_logits_rows, np.int64)
            for index, block in enumerate(self._head.blocks(wanted.token_ids)):
                feeds[f"token_weight.{index}"], feeds[f"token_scale.{index}"] = block.weight, block.scale
            zeros = np.full((len(input_ids), 1), ACTIVATION_ZERO, np.uint8)
            feeds["token_zeros"], feeds["wanted_zeros"] = zeros, zeros[: len(tokens)]
        prefix_layers = self._stacks.layers(call.prefixes)
        grid = call.grid
        nothing = self._nothing(grid.num_groups, grid.num_members)
        for index, prefix in enumerate(prefix_layers):
            past = nothing if call.block is None else call.block.layers[index]
            feeds[f"prefix_key.{index}"], feeds[f"prefix_value.{index}"] = prefix.key, prefix.value
            feeds[f"past_key.{index}"], feeds[f"past_value.{index}"] = past.key, past.value
        return feeds

    def _nothing(self, num_groups: int, num_members: int) -> LayerCache:
        """No own past, for every layer; the same object again, so that it stays bound."""
        size = self._shape.block_size(num_groups, num_members, 0)
        if self._empty_past.both.shape != size:
            self._empty_past = LayerCache.of(np.empty(size, np.float32))
        return self._empty_past

    def _append(self, call: _Call, new_layers: list[LayerCache]) -> None:
        """Keep the new keys and values: in the block that was read, or as a block of their own."""
        block = call.block
        if block is None:
            block = KVBlock(self._shape, new_layers)
            for one in call.placements:
                one.cache.set_cell(Cell(block, one.group, one.member))
        else:
            for target, new in zip(block.layers, new_layers, strict=True):
                for one in call.placements:
                    start, count = one.cache.num_own_tokens + one.num_ahead, len(one.input_ids)
                    source = new.both[:, one.group, :, one.member, :count]
                    cell = (0, 0) if call.is_draft else (one.group, one.member)
                    target.both[:, cell[0], :, cell[1], start : start + count] = source
        for one in call.placements:
            one.cache.grow(len(one.input_ids))


def _block_in_place(pieces: Sequence[Piece]) -> KVBlock | None:
    """The block in which all pieces already sit, if it can be read and extended where it is."""
    first = pieces[0].cache.cell
    if first is None:
        return None
    block, prefixes = first.block, {first.group: pieces[0].cache.prefix}
    for piece in pieces:
        cell = piece.cache.cell
        if cell is None or cell.block is not block or not cell.is_writable:
            return None
        if piece.cache.num_own_tokens + len(piece.input_ids) > block.capacity:
            return None
        if prefixes.setdefault(cell.group, piece.cache.prefix) is not piece.cache.prefix:
            return None
    is_busy = len(pieces) >= (1 - MAX_IDLE_SHARE) * block.num_cells
    return block if is_busy and block.capacity % WIDTH == 0 else None


def _at_least_two(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return rows if len(rows) > 1 else np.repeat(rows, 2, axis=0)


def _at_least_two_or_none(rows: list[int]) -> list[int]:
    return rows * 2 if len(rows) == 1 else rows
