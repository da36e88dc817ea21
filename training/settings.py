"""Profiles of the recipe, read from `training/config.toml`."""

from dataclasses import dataclass, field
from pathlib import Path

import tomllib

HERE = Path(__file__).parent
ROOT = HERE.parent


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """The Qwen2 shape that is trained."""

    vocab_size: int = 8192
    hidden: int = 384
    layers: int = 6
    heads: int = 6
    kv_heads: int = 6
    ffn: int = 1024
    rope_theta: float = 10000.0
    eps: float = 1e-6
    context: int = 2048


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """How long and how fast to train; every time is a share of the wall clock, because the machine is shared."""

    minutes: float
    batch_tokens: int
    row: int = 256
    muon_lr: float = 0.02
    adam_lr: float = 0.003
    weight_decay: float = 0.01
    warmup: float = 0.01
    decay_from: float = 0.35
    label_weight: float = 12.0
    input_weight: float = 0.4
    input_until: float = 0.25
    scored_tasks: int = 2048
    scored_plain: int = 4096
    plain_share: float = 0.5
    plain_until: float = 0.3
    long_share: float = 0.06
    focus_share: float = 0.3
    ema: float = 0.998
    checkpoint_minutes: float = 5.0
    shards: int = 3
    corpus_scale: float = 1.0
    compile: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """One profile."""

    name: str
    run: Path
    model: ModelShape = field(default_factory=ModelShape)
    schedule: Schedule


def load_settings(profile: str) -> Settings:
    """The profile of that name.

    Raises:
        SystemExit: no such profile; the message lists the known ones.
    """
    with (HERE / "config.toml").open("rb") as file:
        table = tomllib.load(file)
    if profile not in table:
        raise SystemExit(f"Unknown profile '{profile}'. Known: {', '.join(sorted(table))}.")
    entry = table[profile]
    return Settings(
        name=profile,
        run=ROOT / entry["run"],
        model=ModelShape(**entry.get("model", {})),
        schedule=Schedule(**entry["schedule"]),
    )
