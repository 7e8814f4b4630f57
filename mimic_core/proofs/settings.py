"""The settings of a proof; pydantic alone is needed to read them, as for those of a run."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from mimic_core.base.config import BatchSize, Frozen, LearningRate, RunConfig, Side, WeightDecay
from mimic_core.base.fields import Otherwise

MAX_HELD_OUT = 20_000  # recall compares each with each, at every training
MIN_SEEDS, MAX_SEEDS = 2, 1000


class ProveConfig(Frozen):
    """Settings of a proof; ``side`` to ``weight_decay`` are those of ``ProbeConfig``.

    ``trusted`` is None when a file names the held-out samples; then up to ``MAX_HELD_OUT`` may
    judge instead of ``held_out_limit``. The same share of all others is set aside, so that what
    trains keeps the pool's own mix. By ``trusted_label_column`` samples are judged alone; all
    train by ``label``, and one without a label there cannot judge.
    """

    trusted: str | None = Field(default=None, title="Marked as good by")
    """Which samples are known to be good: a boolean COLUMN, or COLUMN=VALUE."""
    trusted_label_column: str | None = None
    """Labelled pools: the column whose labels judge; alone, it says who is trusted too."""
    held_out_share: float = Field(default=0.25, gt=0, lt=1, title="Held-out share")
    """Share of the trusted samples that judges and never trains; a held-out file judges whole."""
    held_out_limit: int = Field(default=2000, ge=2, le=MAX_HELD_OUT)
    """Most samples that are drawn to judge."""
    duplicate_cosine: float = Field(default=0.98, gt=0, le=1)
    """Cosine of two image embeddings from which on they count as duplicates."""
    caption_limit: int = Field(default=5, ge=0)
    """Equal captions make duplicates too, unless more samples than this share the caption: then it
    is generic (image, a class name). 0 leaves captions out."""
    seeds: int = Field(default=5, ge=MIN_SEEDS, le=MAX_SEEDS)
    """Trainings of each arm: each seed trains every arm three times, of which two on halves."""
    seed: int = Field(default=0, ge=0, le=2**53 - 1, title="First seed")
    """Where the numbering of the seeds begins."""
    steps: int = Field(default=100, ge=1, le=1_000_000)
    """Optimiser steps of every training; the same for every arm."""
    margin: float = Field(default=0.01, gt=0, lt=1)
    """How much more loss still is not worse, as a share of the other arm's held-out loss."""
    detect: Annotated[float | None, Otherwise("the margin")] = Field(
        default=None, gt=0, title="Difference to be found"
    )
    """A difference of the held-out loss, in its own unit: the report says how many seeds would find
    it in four of five proofs. Nothing is trained again for it."""
    level: float = Field(default=0.05, gt=0, lt=0.5)
    """Chance of any false "better" or "worse" in the whole proof."""
    resamples: int = Field(default=10_000, ge=1000, le=1_000_000)
    """Bootstrap replicates."""
    side: Side = "image"
    batch_size: Annotated[BatchSize, Otherwise("as the run's, else 256")] = Field(
        default=256, description="Samples in a batch."
    )
    learning_rate: LearningRate = 1e-3
    weight_decay: WeightDecay = 1e-5

    @classmethod
    def for_run(cls, config: RunConfig, **changes: Any) -> ProveConfig:
        """``changes`` on the side and optimiser of a probe run, or on the defaults."""
        taken = {"side", "batch_size", "learning_rate", "weight_decay"}
        own = config.probe.model_dump(include=taken) if config.probe else {}
        return cls.parse(own | {k: v for k, v in changes.items() if v is not None})
