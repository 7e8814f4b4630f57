"""What a run is made from: source, reference, feature sets and, in snapshot mode, the scored model.

Everything a user can get wrong is opened and checked here, before the long pass over the images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from mimic_core.base.config import BOTH_SIDES, HeadConfig, Precision, RunConfig, Side, Task
from mimic_core.base.errors import ConfigError, ModelError
from mimic_core.base.progress import Progress
from mimic_core.base.specification import OWN_FEATURES
from mimic_core.features import filling, imageless, shard, spot_check
from mimic_core.features.encoders import CheckedEncoder, ImageEncoder, ReferenceEncoder
from mimic_core.features.loading import LoadedBatch
from mimic_core.features.own import OwnFeatures, read_own_features
from mimic_core.features.stored import store_ends
from mimic_core.mimic import scores
from mimic_core.models.load import LoadedModel, load_model
from mimic_core.models.projections import find_projection
from mimic_core.runs.featureset import FeatureSet
from mimic_core.scoring.labels.reference_head import (
    DEFAULT_PROMPTS,
    class_embeddings,
    require_origin,
)
from mimic_core.scoring.snapshot import Pair, prepare_pair
from mimic_core.sources import index
from mimic_core.sources.images import DECODER
from mimic_core.sources.opening import open_source
from mimic_core.sources.source import Source


@dataclass(frozen=True)
class Inputs:
    """Opened and checked. ``targets`` are the feature sets to fill: the reference's first, then, in
    snapshot mode, the tangents of ``pair``. With features of the user's ``own`` nothing is encoded:
    there is no encoder then, and ``cached`` alone is filled.
    """

    source: Source
    reference: LoadedModel
    device: torch.device
    cached: FeatureSet
    """The reference's feature set."""
    targets: tuple[shard.Target, ...]
    encoder: CheckedEncoder | None
    pair: Pair | None = None
    own: OwnFeatures | None = None
    precision: Precision = "fp32"
    """Of the captions of rows without an image."""

    def fill(self, workers: int | None, progress: Progress) -> None:
        """Fill ``targets`` with what they lack; see ``features.filling.fill``.

        Also measure the captions of rows without an image; see ``features.imageless.fill``.
        """
        imageless.fill(self.cached, self.reference, self.device, self.precision, progress)
        if self.own is not None:
            self.own.fill(self.cached, progress)
            return
        filling.fill(
            self.cached,
            self.targets,
            source=self.source,
            model=self.reference,
            device=self.device,
            workers=workers,
            progress=progress,
        )

    def load_some(self, count: int) -> LoadedBatch:
        """Up to ``count`` readable samples; see ``features.spot_check.load_some``."""
        return spot_check.load_some(
            self.cached, self.source, self.reference, self.device, count=count
        )

    def load_two(self) -> LoadedBatch:
        """Two readable samples; see ``features.spot_check.load_two``."""
        return spot_check.load_two(self.cached, self.source, self.reference, self.device)

    @property
    def reading(self) -> str:
        """What was read of the pool, and what was not."""
        return index.reading(self.source, self.cached.info["indexed"])

    @property
    def tangents(self) -> FeatureSet | None:
        """The scored model's tangents, in snapshot mode."""
        return self.targets[1].features if len(self.targets) > 1 else None


def open_inputs(
    config: RunConfig, runs_root: Path, device: torch.device, progress: Progress
) -> Inputs:
    """Open the source and the models of ``config`` and find or begin their feature sets.

    Raises:
        Interrupted: ``progress.check`` asked to stop while the pool was being indexed.
        MimicError: The source or a model cannot be used as asked.
    """
    source = open_source(config.source)
    _require_fitting_task(config, source.task)
    own = _own_features(config, source.task)
    if own is None:
        reference = load_model(config.reference, preprocess=config.preprocess)
    else:
        reference = own.as_model()
    reference.module.to(device)
    feature_set = partial(
        filling.feature_set_for,
        runs_root,
        source,
        config.source,
        reference,
        precision=config.precision,
        device=device,
        progress=progress,
    )
    if own is not None:
        return _own_inputs(config, source, own, reference, device, feature_set, progress)
    if source.task == "labels":
        return _label_inputs(config, source, reference, device, feature_set, progress)
    if reference.tokenizer is None:
        raise ConfigError(
            "captions need a reference with a text tower, which an image model has not",
            got=config.reference,
            allowed="an open_clip model",
            next_step="choose one, or name the labels with --task labels and --label-column",
        )
    sides = _sides(config, reference)
    encoder = ReferenceEncoder(reference.module, device, config.precision, sides)
    cached = feature_set(arrays=encoder.arrays)
    _tell(config, source, cached, reference, device, progress)
    store_ends(cached, reference.module, sides)
    targets = (shard.Target(cached, encoder),)
    if config.snapshot is None:
        return Inputs(
            source, reference, device, cached, targets, encoder, precision=config.precision
        )
    pair = prepare_pair(config, config.snapshot, reference, device, progress.note)
    tangents = feature_set(arrays=pair.encoder.arrays, extra=pair.identity, index_from=cached)
    both = (*targets, shard.Target(tangents, pair.encoder))
    return Inputs(
        source, reference, device, cached, both, encoder, pair, precision=config.precision
    )


def _require_fitting_task(config: RunConfig, task: Task) -> None:
    """Refuse settings of the other task before anything long begins."""
    projected = config.reference.startswith(OWN_FEATURES) and config.head == _projection(config)
    if task == "pairs" and config.head is not None and not projected:
        raise ConfigError(
            "a reference head is for labelled images, and this pool has captions",
            got=", ".join(config.head.model_fields_set),
            allowed="--task labels, for a pool that has labels",
            next_step="leave those options out, or name the labels with --label-column",
        )
    judge = None if config.training is None else config.training.held_out_label_column
    if task == "pairs" and judge is not None:
        raise ConfigError(
            "a column of labels judges labelled images, and this pool has captions",
            got=f"--held-out-label-column {judge}",
            allowed="--task labels, for a pool that has labels",
            next_step="leave that option out, or name the labels with --label-column",
        )
    if task == "pairs" and config.snapshot is None:  # of labels, cosines cost nothing
        scores.require_cosine_batch(config.scorer.method, config.scorer.batch_size)
    if task == "labels" and config.snapshot is not None:
        raise ConfigError(
            "snapshot mode scores captions, and this pool has labels",
            got="--mode snapshot",
            allowed="--mode probe",
            next_step="leave --mode out, or train with the command train",
        )


def _label_inputs(
    config: RunConfig,
    source: Source,
    reference: LoadedModel,
    device: torch.device,
    feature_set: Callable[..., FeatureSet],
    progress: Progress,
) -> Inputs:
    """Those of a labelled pool. The prompts decide the CLIP score, so they name the feature set."""
    has_text = reference.tokenizer is not None
    given = () if config.head is None else config.head.prompts
    if given and not has_text:
        class_embeddings(reference, (), given, device)  # says what is wrong
    prompts = given or DEFAULT_PROMPTS
    cached = feature_set(
        arrays=("image_embedding",) if has_text else ("image_features",),
        extra={"prompts": list(prompts)} if has_text else None,
    )
    _tell(config, source, cached, reference, device, progress)
    classes = None
    if has_text:
        labels = cached.index_labels()
        described = class_embeddings(reference, labels, prompts, device)
        classes = dict(zip(labels, described, strict=True))
    require_origin(cached, config.head, reference)
    encoder = ImageEncoder(reference.module, device, config.precision, classes)
    targets = (shard.Target(cached, encoder),)
    return Inputs(source, reference, device, cached, targets, encoder)


def _own_features(config: RunConfig, task: Task) -> OwnFeatures | None:
    """The features that the configuration names in the place of a model, if it does.

    Raises:
        ConfigError: They cannot be used for what is asked.
        ModelError: The file cannot be used.
    """
    if not config.reference.startswith(OWN_FEATURES):
        return None
    refused = {
        f"{config.mode} mode: it runs a model on the images": config.mode != "probe",
        "--preprocess: no image is read": config.preprocess is not None,
    }
    for what, wrong in refused.items():
        if wrong:
            raise ConfigError(
                "features of your own cannot be used here",
                got=what,
                allowed="score --features FILE in probe mode, without --preprocess",
                next_step="leave that out, or give a model with --reference",
            )
    own = read_own_features(Path(config.reference.removeprefix(OWN_FEATURES)))
    if task == "labels":
        return own
    if config.head is None or config.head.file is None:
        raise ConfigError(
            "captions need a projection from the features to the text_features",
            got="no file",
            allowed="--reference-head FILE, safetensors of weight and logit_scale",
            next_step="name it, or name labels with --label-column",
        )
    return own.projected(Path(config.head.file))


def _projection(config: RunConfig) -> HeadConfig | None:
    """The only settings of a head that captions know: the file of a projection."""
    file = None if config.head is None else config.head.file
    return None if file is None else HeadConfig(file=file)


def _own_inputs(
    config: RunConfig,
    source: Source,
    own: OwnFeatures,
    reference: LoadedModel,
    device: torch.device,
    feature_set: Callable[..., FeatureSet],
    progress: Progress,
) -> Inputs:
    """Those of a pool with features of the user's own; ``reference`` stands for them."""
    if config.head is not None and config.head.prompts:
        class_embeddings(reference, (), config.head.prompts, device)  # says what is wrong
    cached = feature_set(arrays=own.arrays)
    progress.note(index.reading(source, cached.info["indexed"]))
    progress.note(own.matched(cached))
    if source.task == "labels":
        require_origin(cached, config.head, reference)
    return Inputs(source, reference, device, cached, (), None, own=own)


def _tell(
    config: RunConfig,
    source: Source,
    cached: FeatureSet,
    reference: LoadedModel,
    device: torch.device,
    progress: Progress,
) -> None:
    """What was read of the pool, as the first line of every run, and with what it is looked at."""
    progress.note(index.reading(source, cached.info["indexed"]))
    progress.note(f"reference: {config.reference} on {device}")
    progress.note(
        f"preprocessing, {reference.preprocessing_origin}: {reference.preprocessing} "
        f"(sha256 {reference.preprocessing_sha256[:12]}); decoder: {DECODER}"
    )


def _sides(config: RunConfig, reference: LoadedModel) -> tuple[Side, ...]:
    """Towers with a linear projection; the one that a probe is to train must be among them."""
    sides: list[Side] = []
    for side in BOTH_SIDES:
        try:
            find_projection(reference.module, side)
            sides.append(side)
        except ModelError:
            if config.probe is not None and config.probe.side == side:
                raise
    return tuple(sides)
