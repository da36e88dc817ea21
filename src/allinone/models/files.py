"""A model as it lies on disk, opened: its weights, tokenizer, chat template and calibration, checked to fit together.

All cheap checks come first; no weight is read here. Above: the importer and the transformers backend. Below: the
readers of each format.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from allinone.errors import TokenizerMismatch, WeightsMismatch, WeightsNotFound
from allinone.models.calibration import Calibration, read_gguf_calibration
from allinone.models.catalog import find_in_catalog
from allinone.models.chat_template import ChatTemplate, read_folder_template, read_gguf_template
from allinone.models.gguf import (
    GgufHeader,
    GgufWeights,
    gguf_licence,
    gguf_model_name,
    gguf_stored_dtype,
    read_gguf_header,
)
from allinone.models.safetensors import SafetensorsWeights, folder_model_name
from allinone.models.tokenizer import BpeTokenizer, Tokenizer
from allinone.models.weights import WeightSource
from allinone.types import Message, Segment

_TURN_MARKER = re.compile(r"<\|[^<>|\s]+\|>")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """An opened model. `path` is the GGUF file or the safetensors folder."""

    path: Path
    name: str
    licence: str | None
    weights: WeightSource
    tokenizer: Tokenizer
    template: ChatTemplate
    calibration: Calibration


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufText:
    """What a GGUF says about text, and what it is called; its weights are somebody else's business."""

    path: Path
    name: str
    licence: str | None
    stored_dtype: str
    tokenizer: Tokenizer
    template: ChatTemplate
    calibration: Calibration


def open_model(path: Path) -> ModelFiles:
    """Open a GGUF file or a folder of safetensors, as `locate_model` names it.

    Raises:
        WeightsNotFound: nothing is there, or files are missing.
        WeightsMismatch: truncated, damaged, or an architecture or quantisation that is not supported.
        TokenizerMismatch: the tokenizer is of another kind, or does not fit the weights or the template.
        ModelError: the chat template or the calibration cannot be used.
    """
    path = path.expanduser()
    if not path.exists():
        raise WeightsNotFound(f"No such file or folder: {path}", hint="`allinone models list` shows what is here")
    files = _open_gguf(path) if path.is_file() else _open_folder(path)
    _check_turn_markers(files)
    return files


def _open_folder(folder: Path) -> ModelFiles:
    known = find_in_catalog(folder_model_name(folder))
    weights = SafetensorsWeights(folder, licence=known.licence if known else None)
    template = read_folder_template(folder, name=weights.name)
    return ModelFiles(
        path=folder,
        name=weights.name,
        licence=weights.licence,
        weights=weights,
        tokenizer=BpeTokenizer.load(folder, vocab_size=weights.config.vocab_size),
        template=ChatTemplate.plain(weights.name) if known and known.kind == "base" else template,
        calibration=Calibration.load(folder),
    )


def open_gguf_text(path: Path) -> GgufText:
    """Tokenizer, template and calibration of a GGUF of any architecture and quantisation.

    Raises:
        WeightsNotFound, WeightsMismatch, TokenizerMismatch, ModelError: as `open_model`, but for what only concerns
            the weights.
    """
    text = _read_text(read_gguf_header(path.expanduser()))
    _check_turn_markers(text)
    return text


def _open_gguf(file: Path) -> ModelFiles:
    header = read_gguf_header(file)
    weights = GgufWeights(header)  # refuses first what it cannot read
    text = _read_text(header)
    return ModelFiles(
        path=file,
        name=text.name,
        licence=text.licence,
        weights=weights,
        tokenizer=text.tokenizer,
        template=text.template,
        calibration=text.calibration,
    )


def _read_text(header: GgufHeader) -> GgufText:
    file, name = header.path, gguf_model_name(header)
    known = find_in_catalog(folder_model_name(file.parent)) or find_in_catalog(name)
    template = read_gguf_template(header.metadata, name=name)
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None:
        raise WeightsMismatch(f"{file} holds a vocabulary but no weights", hint="take the model's own GGUF file")
    return GgufText(
        path=file,
        name=name,
        licence=known.licence if known else gguf_licence(header),
        stored_dtype=gguf_stored_dtype(header),
        tokenizer=BpeTokenizer.from_gguf(header.metadata, file=str(file), vocab_size=embedding.shape[0]),
        template=ChatTemplate.plain(name) if known and known.kind == "base" else template,
        calibration=read_gguf_calibration(header.metadata, file=str(file)),
    )


def _check_turn_markers(files: ModelFiles | GgufText) -> None:
    """Every `<|…|>` that the template writes must be one token, or the model would read its turns letter by letter."""
    content = (Segment(text="·", trusted=False),)
    segments = files.template.render((Message(role="system", content=content), Message(role="user", content=content)))
    markers = {marker for segment in segments if segment.trusted for marker in _TURN_MARKER.findall(segment.text)}
    missing = sorted(markers - files.tokenizer.control_tokens.keys())
    if missing:
        raise TokenizerMismatch(
            f"{files.path}: the chat template writes {', '.join(missing)}, which are not control tokens of the "
            f"tokenizer. It has: {', '.join(sorted(files.tokenizer.control_tokens)) or 'none'}",
            hint="template and tokenizer belong to different models",
        )
