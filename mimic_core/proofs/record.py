"""What a proof is: its settings, its figures, its verdicts; stored beside the run as JSON.

``<run>/proofs/<id>.json`` is named by what made it (run, recipes with the samples they keep,
held-out samples, settings), so that equal inputs find it again. It holds no dates: made anew, it
has the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from mimic_core.base import files
from mimic_core.base.config import Frozen
from mimic_core.base.errors import RunError
from mimic_core.filters.recipe import Recipe
from mimic_core.proofs.settings import ProveConfig

PROOFS_DIR = "proofs"
PROOF_VERSION = 1

ArmKind = Literal["all", "recipe", "random"]
Outcome = Literal["better", "worse", "not_worse", "open"]
ALL_SAMPLES = "all samples"


def is_share(metric: str) -> bool:
    """Whether the metric is a share (recall, accuracy), of which more is better, or a loss."""
    return not metric.endswith("loss")


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
    """One way to choose what trains; ``of`` names the recipe of a random subset of its size.

    Attributes:
        curve: The held-out loss after so many steps, at every quarter of the training; mean over
            the seeds. Empty in older proofs.
    """

    name: str
    kind: ArmKind
    of: str | None = None
    trained: int
    metrics: dict[str, Interval]
    curve: tuple[tuple[int, float], ...] = ()


class Power(Frozen):
    """What a comparison can find (``mimic_core.proofs.power``); all in the unit of the loss.

    Attributes:
        held_out_error, training_error: Standard errors of the difference over other samples that
            judge, and over other samples that train.
        level: Of the two-sided test; the first step of Holm's correction, the strictest.
        detectable: What this proof's seeds find in 80 % of such proofs.
        limit: What any number of seeds finds, at the least.
        difference: The one that is asked for.
        seeds: So many find ``difference``; None where no number does.
        seeds_least, seeds_most: The same at the ends of the 80 % range of ``training_error``, which
            a few seeds know but roughly; None as for ``seeds``.
        judging: So many held-out samples would bring ``limit`` down to ``difference``; None where
            no number does, because ``training_error`` alone is too large.
    """

    held_out_error: float
    training_error: float
    level: float
    detectable: float
    limit: float
    difference: float
    seeds: int | None
    seeds_least: int | None
    seeds_most: int | None
    judging: int | None


class Comparison(Frozen):
    """Two arms against each other; differences are the first minus the second.

    Attributes:
        relative: The difference of the loss as a share of the second arm's loss.
        p: Two-sided, of no difference in held-out loss; ``p_corrected`` after Holm's correction.
        p_not_worse: One-sided, of being worse by the margin or more; corrected likewise.
        power: None where both arms train on the same samples, and in older proofs.
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
    power: Power | None = None


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
