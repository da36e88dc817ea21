"""Profiles of the recipe, read from `training/config.toml`."""

from dataclasses import dataclass, field
from pathlib import Path

import tomllib

HERE = Path(__file__).parent
ROOT = HERE.parent
PACKAGE = ROOT / "src" / "allinone" / "models" / "bundled"


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
    """How long and how fast to train; every time is a share of the training's own clock, because machines are shared.

    Attributes:
        minutes: length of the training.
        batch_tokens: places of one step; `row` of them are packed as one row.
        muon_lr, adam_lr: peak learning rates of the matrices and of the rest.
        warmup, decay_from: shares of the time at which the rate has risen and begins to fall.
        label_weight, edit_weight, input_weight: loss weights of a label, of a changed token in a correction, and of
            the user's text; any other answer token weighs 1. The user's text counts until `input_until`.
        edit_weight_end: what the weight of a changed token becomes, on a straight line: high at first, because copying
            is learned sooner than changing, lower later, or what is right would be changed too.
        scored_tasks, scored_plain: positions of a step whose scores over the vocabulary are computed.
        plain_share, copy_share: of the first steps; they fade until `plain_until` and `copy_until`.
        long_share, tail_share: of the steps after a third of the time, and after `tail_from`.
        chat_share: of the last steps, after `chat_from`, beside the tail: replies are learned by heart.
        remark_share: of the last steps, after `remark_from`: everyday remarks, which have few words of praise or blame.
        review_share: of the steps after `review_from`: Chinese reviews, which are learned only if asked for often.
        typo_share: of the steps after `typo_from`: wrong characters put into clean Chinese text.
        width: places of a row as it is trained on, a multiple of `row`: rows are laid side by side (0: as packed).
        parts_every: steps between two looks at the parts of the loss; a look makes a GPU wait.
        curve_points: how often the label sets are scored on the way: seconds on a GPU, minutes on a CPU.
        plain_scale: how much running text the corpus takes, as a multiple of the budgets of `sources`.
        dropout: share of what every layer adds that is dropped in training: for texts that are seen many times.
        ema: decay of the averaged weights per step.
        seed: added to those of the corpus, so that a profile that goes on from another one sees other examples.
        compile: fuse operations with `torch.compile`.
    """

    minutes: float
    batch_tokens: int
    row: int = 256
    muon_lr: float = 0.02
    adam_lr: float = 0.003
    weight_decay: float = 0.01
    dropout: float = 0.0
    warmup: float = 0.01
    decay_from: float = 0.35
    label_weight: float = 12.0
    edit_weight: float = 4.0
    edit_weight_end: float = 4.0
    input_weight: float = 0.4
    input_until: float = 0.25
    scored_tasks: int = 3072
    scored_plain: int = 4096
    plain_share: float = 0.5
    plain_until: float = 0.3
    copy_share: float = 0.3
    copy_until: float = 0.2
    long_share: float = 0.04
    tail_share: float = 0.6
    tail_from: float = 0.7
    chat_share: float = 0.0
    chat_from: float = 0.9
    remark_share: float = 0.0
    remark_from: float = 0.85
    review_share: float = 0.0
    review_from: float = 0.5
    typo_share: float = 0.0
    typo_from: float = 0.2
    width: int = 0
    parts_every: int = 1
    curve_points: int = 0
    plain_scale: float = 0.7
    ema: float = 0.998
    checkpoint_minutes: float = 5.0
    shards: int = 3
    seed: int = 0
    corpus_scale: float = 1.0
    compile: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """One profile: its run folder, what it starts from, shape and schedule.

    Attributes:
        weights: the name of what it exports; the profile's own where none is given.
        init: the GGUF whose weights training starts from; None: random ones.
        vocabulary: the GGUF whose tokenizer is taken where there is no `init`; None: one is trained.
    """

    name: str
    weights: str = "trained"
    run: Path
    init: Path | None = None
    vocabulary: Path | None = None
    model: ModelShape = field(default_factory=ModelShape)
    schedule: Schedule


def find_gguf(name: str) -> Path:
    """A path relative to the repository; "bundled" is the published file, whatever its version."""
    return next(PACKAGE.glob("*.gguf")) if name == "bundled" else ROOT / name


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
        weights=entry.get("weights", profile),
        init=find_gguf(entry["init"]) if "init" in entry else None,
        vocabulary=find_gguf(entry["vocabulary"]) if "vocabulary" in entry else None,
        model=ModelShape(**entry.get("model", {})),
        schedule=Schedule(**entry["schedule"]),
    )
