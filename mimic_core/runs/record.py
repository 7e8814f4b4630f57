"""What ``run.json`` says: the settings of a run, its counts, its checks, and how it is named."""

from __future__ import annotations

from typing import Any, Literal

from mimic_core.base.config import Frozen, HeadConfig, RunConfig
from mimic_core.base.identity import digest, slug
from mimic_core.base.schema import SCHEMA_VERSION

RunStatus = Literal["running", "done"]
CheckLevel = Literal["good", "caution", "bad", "unknown"]

HeadOrigin = Literal["file", "trusted", "zero_shot", "checkpoint"]
WeightDecayOrigin = Literal["cross_validation", "given", "too_few"]

# Of the way from chance to all labels: below, a reference head is warned of.
FEW_BEYOND_CHANCE = 0.25
JUDGED_CHANCE = 0.9  # where one class is nearly everything, agreement says nothing


class HeadRecord(Frozen):
    """The reference head of a labelled run: where it is from, and how good it is on the pool.

    ``accuracy`` is the share of the ``scored`` samples whose label it predicts, whether or not the
    labels are right. ``disjoint`` says that no sample it was trained on was scored, as far as
    Mimicscope has trained it; ``trusted_held_out`` more were trusted, but are held out.
    ``converged`` is false where the training of the head has not come to its end. ``chance`` is the
    accuracy that its predictions would have on the same labels in another order; None in records
    that do not hold it. ``weight_decay`` is that of a head trained on trusted samples, and
    ``weight_decay_origin`` how it came about: ``too_few`` where no class has two trusted samples.
    """

    origin: HeadOrigin
    classes: int
    scored: int
    accuracy: float
    prompts: tuple[str, ...] = ()
    trusted: int = 0
    trusted_held_out: int = 0
    trusted_accuracy: float | None = None
    disjoint: bool = True
    converged: bool = True
    chance: float | None = None
    weight_decay: float | None = None
    weight_decay_origin: WeightDecayOrigin | None = None

    @property
    def warning(self) -> str | None:
        """What is probably wrong where the head agrees with far fewer labels than its classes
        would give; None where nothing speaks for that.

        A good head agrees with most correct labels, so what lies beyond chance says which share is
        correct: 0.3 of the way to all at 70 % wrong labels. Wrongly prepared images end below.
        """
        if self.chance is None or self.chance > JUDGED_CHANCE:
            return None
        if (self.accuracy - self.chance) / (1 - self.chance) >= FEW_BEYOND_CHANCE:
            return None
        return (
            f"the reference head agrees with {self.accuracy:.1%} of the labels, far fewer than "
            f"{self.classes} classes would give; {self.chance:.1%} would be chance. Unless most "
            "labels are wrong, the images are not prepared as the reference was trained (see the "
            "preprocessing; --preprocess chooses another), its classes are in another order, or it "
            "does not know these images"
        )

    def as_sentence(self) -> str:
        """The same for people."""
        origin = {
            "file": "read from a file",
            "trusted": f"trained on {self.trusted:,} trusted samples",
            "zero_shot": f"zero-shot from {', '.join(map(repr, self.prompts))}",
            "checkpoint": "the reference checkpoint's own classifier",
        }[self.origin]
        left = f", {self.trusted_held_out:,} more are held out" if self.trusted_held_out else ""
        scored = "" if self.disjoint else ", which are scored too"
        ended = "" if self.converged else ", stopped by its limit before it had converged"
        return (
            f"{origin}{left}{scored}{self._decay()}{ended}; {self.classes} classes; agrees with "
            f"{self.accuracy:.1%} of the {self.scored:,} scored labels"
        )

    def _decay(self) -> str:
        if self.weight_decay is None or self.weight_decay_origin is None:
            return ""
        how = {
            "cross_validation": "chosen by cross-validation",
            "given": "as given",
            "too_few": "the usual one: no class has the two samples that choosing takes",
        }[self.weight_decay_origin]
        return f", with weight decay {self.weight_decay:g} ({how})"


class LayerSweep(Frozen):
    """What one candidate mimic layer would give on a small part of the pool."""

    mimic_layers: tuple[str, ...]
    samples: int
    share_positive: float
    rank_with_clip_score: float | None
    rank_with_loss: float | None
    mean_score: float


class EpochCheck(Frozen):
    """The direction check of one epoch: ``figure`` of its scores, ``figure_until`` of the mean over
    the epochs up to it, which would have ``level_until``.
    """

    epoch: int
    figure: float
    figure_until: float
    level_until: CheckLevel
    rank_with_loss: float | None
    rank_with_reference: float | None


class DirectionCheck(Frozen):
    """Do the scores tell right labels or captions from wrong ones (``docs/direction.md``)?

    ``figure`` is the AUROC for wrong labels or captions that is to be expected of the mean scores,
    ``error`` its standard error, from ``planted`` samples that were scored a second time with a
    label or caption that is wrong on purpose; ``like_planted`` is the share of the pool's own that
    look like these to the reference. All are None where nothing could be planted. From epoch
    ``turns_at`` on (counted from 0) scores no longer tell them; the means over the first
    ``use_epochs`` epochs would have a better level.

    ``segment`` holds (position, mean loss) from the model (0) to the reference (1) on the mimic
    layers. Rank agreements are Spearman's; None where one side is constant.
    """

    segment: tuple[tuple[float, float], ...]
    share_positive: float
    rank_with_clip_score: float | None
    rank_with_loss: float | None
    level: CheckLevel
    verdict: str
    figure: float | None = None
    error: float | None = None
    planted: int = 0
    like_planted: float | None = None
    epochs: tuple[EpochCheck, ...] = ()
    turns_at: int | None = None
    use_epochs: int | None = None
    sweep: tuple[LayerSweep, ...] = ()

    def level_of(self, epochs_used: int | None) -> CheckLevel:
        """The level of the mean over the first epochs; of all where nothing else is chosen."""
        if epochs_used is None or not self.epochs:
            return self.level
        return self.epochs[min(epochs_used, len(self.epochs)) - 1].level_until


class JoinRecord(Frozen):
    """Columns that were joined to a run from another file, and how the two met.

    ``file`` of the run's folder ``joins`` holds them, with that ``sha256``; ``columns`` says what
    each is called there and what it was called in ``source``, the file that they come from. Its
    ``uid_column`` was compared with the run's column ``on``. ``matched`` samples have a row,
    ``without`` have none, and ``unused`` of its ``rows`` are of no sample. ``emptied`` numbers of
    each column were not finite and are null.
    """

    name: str
    file: str
    sha256: str
    source: str
    source_sha256: str
    uid_column: str
    on: str = "uid"
    columns: dict[str, str]
    rows: int
    matched: int
    without: int
    unused: int
    emptied: dict[str, int] = {}
    joined_at: str = ""

    def as_sentences(self) -> list[str]:
        """How they met, in words; one sentence more for each column that is not as in the file."""
        met = (
            f"{', '.join(self.columns)} from {self.source}: {self.matched:,} of "
            f"{self.matched + self.without:,} samples have a row there, {self.without:,} have "
            f"none; {self.unused:,} of its {self.rows:,} rows are of no sample"
        )
        words = [met]
        words += [
            f"its column {old!r} is stored as {new!r}, as that name is taken or cannot be stored"
            for new, old in self.columns.items()
            if new != old
        ]
        words += [
            f"{count:,} numbers of its column {old!r} are not finite: they count as missing"
            for old, count in self.emptied.items()
        ]
        return words


class RunRecord(Frozen):
    """The content of ``run.json``; ``samples`` have scores, ``held_out`` are readable without.

    ``reading`` says what was read of the pool and what was not.
    ``epochs_used``: means, votes, filters and exports look at the first so many epochs; None: all.
    ``joins`` are columns that other files have given to the table.
    """

    schema_version: int
    run_id: str
    status: RunStatus
    created_at: str
    finished_at: str | None = None
    config: RunConfig
    feature_set: str
    reading: str = ""
    tangent_set: str | None = None
    mimic_layers: tuple[str, ...] = ()
    batch_size: int = 0
    samples: int = 0
    skipped: int = 0
    held_out: int = 0
    epochs: int = 0
    epochs_used: int | None = None
    device: str = "cpu"
    versions: dict[str, str] = {}
    preprocessing: dict[str, Any] = {}
    preprocessing_sha256: str = ""
    decoder: str = ""
    reference_head: HeadRecord | None = None
    self_check: dict[str, float] = {}
    direction_check: DirectionCheck | None = None
    timings: dict[str, float] = {}
    joins: tuple[JoinRecord, ...] = ()


def run_id(config: RunConfig, feature_set: str, model: str | None) -> str:
    """Name of the run: the same pool, models and settings always give the same one.

    The feature sets' own names hold what they depend on: pool, weights, preprocessing, precision.

    Args:
        model: What distinguishes the model from others where it is not the reference's own: the
            name of its tangents, the weights that training starts from, or the content of the
            reference head's file.
    """
    settings = config.scorer.model_dump(mode="json", exclude={"model"})
    parts = [SCHEMA_VERSION, feature_set, model, config.mode, settings]
    if config.head not in (None, HeadConfig()):
        parts.append(config.head.model_dump(mode="json", exclude={"file"}))
    identity = digest(parts)
    return f"{slug(config.source.path)}-{config.mode}-{identity}"
