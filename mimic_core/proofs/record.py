"""What a proof is: its settings, its figures, its verdicts; stored beside the run as JSON.

``<run>/proofs/<id>.json`` is named by what made it (run, recipes with the samples they keep,
held-out samples, settings), so that equal inputs find it again. It holds no dates: made anew, it
has the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from mimic_core.base import files
from mimic_core.base.config import Frozen, RunConfig, Side
from mimic_core.base.errors import RunError
from mimic_core.filters.recipe import Recipe

PROOFS_DIR = "proofs"
PROOF_VERSION = 1

ArmKind = Literal["all", "recipe", "random"]
Outcome = Literal["better", "worse", "not_worse", "open"]
ALL_SAMPLES = "all samples"
MAX_HELD_OUT = 20_000  # recall compares each with each, at every training


def is_share(metric: str) -> bool:
    """Whether the metric is a share (recall, accuracy), of which more is better, or a loss."""
    return not metric.endswith("loss")


class ProveConfig(Frozen):
    """Settings of a proof.

    Attributes:
        trusted: Which samples are known to be good: a boolean column, or ``column=value``. None
            when a file names the held-out samples.
        trusted_label_column: Of a labelled pool: the column whose labels judge, in place of
            ``label``, by which everything still trains. A sample without a label there cannot
            judge. Alone, it also says who is trusted: those with a label there.
        held_out_share: Share of the trusted samples that is held out; the same share of all others
            is set aside, so that what trains keeps the pool's own mix.
        held_out_limit: Most samples drawn; a held-out file may list up to ``MAX_HELD_OUT``.
        duplicate_cosine: Cosine of two image embeddings from which on they count as duplicates.
        caption_limit: Equal captions make duplicates too, unless more samples than this share the
            caption: then it is generic ("image", a class name). 0 leaves captions out.
        seeds: Trainings of each arm, each with two more on halves.
        seed: Where the numbering of the seeds begins.
        steps: Optimiser steps of every training.
        margin: What still counts as not worse: a share of the other arm's held-out loss.
        level: Chance of any false "better" or "worse" in the whole proof.
        resamples: Bootstrap replicates.
        side, batch_size, learning_rate, weight_decay: As in ``ProbeConfig``.
    """

    trusted: str | None = None
    trusted_label_column: str | None = None
    held_out_share: float = Field(default=0.25, gt=0, lt=1)
    held_out_limit: int = Field(default=2000, ge=2, le=MAX_HELD_OUT)
    duplicate_cosine: float = Field(default=0.98, gt=0, le=1)
    caption_limit: int = Field(default=5, ge=0)
    seeds: int = Field(default=5, ge=2, le=1000)
    seed: int = Field(default=0, ge=0)
    steps: int = Field(default=100, ge=1, le=1_000_000)
    margin: float = Field(default=0.01, gt=0, lt=1)
    level: float = Field(default=0.05, gt=0, lt=0.5)
    resamples: int = Field(default=10_000, ge=1000, le=1_000_000)
    side: Side = "image"
    batch_size: int = Field(default=256, ge=2, le=65_536)
    learning_rate: float = Field(default=1e-3, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(default=1e-5, ge=0, allow_inf_nan=False)

    @classmethod
    def for_run(cls, config: RunConfig, **changes: Any) -> ProveConfig:
        """``changes`` on the side and optimiser of a probe run, or on the defaults."""
        taken = {"side", "batch_size", "learning_rate", "weight_decay"}
        own = config.probe.model_dump(include=taken) if config.probe else {}
        made: ProveConfig = cls.parse(own | {k: v for k, v in changes.items() if v is not None})
        return made


class ProofRequest(Frozen):
    """A proof to be made in the background: the run's folder, recipes by name, settings.

    ``held_out`` lists the uids that judge, in place of ``config.trusted``.
    """

    run: str
    recipes: tuple[tuple[str, Recipe], ...]
    config: ProveConfig
    held_out: tuple[str, ...] | None = None


class Interval(Frozen):
    """A figure with its interval at ``1 - level``, not corrected for several comparisons."""

    value: float
    low: float
    high: float

    def within(self, least: float, most: float) -> Interval:
        """The interval cut off at the ends of a scale."""
        low, high = (min(max(end, least), most) for end in (self.low, self.high))
        return Interval(value=self.value, low=low, high=high)


class Leakage(Frozen):
    """Duplicates of held-out samples among the samples that could train; none of them does.

    Attributes:
        same_image, same_file, same_caption: Samples found by each sign; one may show several.
        removed: Samples kept out of every arm, each counted once.
        held_out_touched: Held-out samples that had a duplicate.
    """

    same_image: int
    same_file: int
    same_caption: int
    removed: int
    held_out_touched: int


class HeldOut(Frozen):
    """The part that never trains.

    Attributes:
        unscored: Samples of the pool that have no score in the run; they may judge, never train.
    """

    source: str
    trusted: int
    held_out: int
    groups: int
    set_aside: int
    unscored: int = 0
    trainable: int
    uids_sha256: str
    leakage: Leakage


class ProvedRecipe(Frozen):
    """A recipe as it was proved; ``kept`` counts the whole table, ``trained`` the arm."""

    name: str
    recipe: Recipe
    kept: int
    total: int
    trained: int
    uids_sha256: str


class Arm(Frozen):
    """One way to choose what trains; ``of`` names the recipe of a random subset of its size."""

    name: str
    kind: ArmKind
    of: str | None = None
    trained: int
    metrics: dict[str, Interval]


class Comparison(Frozen):
    """Two arms against each other; differences are the first minus the second.

    Attributes:
        relative: The difference of the loss as a share of the second arm's loss.
        p: Two-sided, of no difference in held-out loss; ``p_corrected`` after Holm's correction.
        p_not_worse: One-sided, of being worse by the margin or more; corrected likewise.
    """

    first: str
    second: str
    differences: dict[str, Interval]
    relative: Interval
    p: float
    p_corrected: float
    p_not_worse: float
    p_not_worse_corrected: float
    outcome: Outcome
    text: str


class Proof(Frozen):
    """Do recipes help? All figures, and the verdict in words."""

    version: Literal[1] = 1
    proof_id: str
    run: str
    feature_set: str
    task: Literal["pairs", "labels"]
    config: ProveConfig
    batch_size: int
    held_out: HeldOut
    recipes: tuple[ProvedRecipe, ...]
    arms: tuple[Arm, ...]
    comparisons: tuple[Comparison, ...]
    verdict: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def arm(self, name: str) -> Arm:
        """The arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)

    def to_json(self) -> str:
        """The stored text; equal proofs give equal text."""
        return self.model_dump_json(indent=2) + "\n"


def proof_file(run_path: Path, proof_id: str) -> Path:
    """Where the proof of that id is, or would be."""
    return run_path / PROOFS_DIR / f"{proof_id}.json"


def store_proof(run_path: Path, proof: Proof) -> Path:
    """Write the proof beside its run."""
    path = proof_file(run_path, proof.proof_id)
    files.write_bytes(path, proof.to_json().encode())
    return path


def read_proof(path: Path) -> Proof:
    """Read what ``store_proof`` wrote.

    Raises:
        RunError: The file is missing, damaged or of another version.
    """
    values = files.read_json(path)
    try:
        return Proof.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise RunError(
            f"the proof is damaged or of another version: {first['loc']}: {first['msg']}",
            got=str(path),
            allowed=f"proofs of version {PROOF_VERSION}",
            next_step="delete that file and prove again",
        ) from error


def stored_proofs(
    run_path: Path, *, reader: Callable[[Path], Proof] = read_proof
) -> tuple[list[Proof], list[RunError]]:
    """All proofs of a run, newest first, and an error for each one that cannot be read."""
    proofs, damaged = [], []
    found = (run_path / PROOFS_DIR).glob("*.json")
    for path in sorted(found, key=lambda file: (-file.stat().st_mtime_ns, file.name)):
        try:
            proofs.append(reader(path))
        except RunError as error:
            damaged.append(error)
    return proofs, damaged
