"""What a training run is made from: opened, read once, checked and split, before the first step.

The reference is run once over the pool: that tells which samples can be read, and gives CLIP
scores, embeddings for the map, and the reference's losses for Rho-loss. After that only its values
of the mimic layers are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import polars as pl
from torch import Tensor, nn

from mimic_core.base.config import RunConfig, TrainConfig
from mimic_core.base.draws import draw_clean
from mimic_core.base.errors import ConfigError, ModelError
from mimic_core.base.progress import Progress
from mimic_core.base.specification import default_temperature
from mimic_core.features import filling as features
from mimic_core.features.loading import LoadedBatch, SampleLoader
from mimic_core.mimic import scores
from mimic_core.mimic.weightings import needs_comparison
from mimic_core.models.classifiers import head_name
from mimic_core.models.layers import default_mimic_layers
from mimic_core.models.load import LoadedModel, load_model, weights_identity
from mimic_core.runs.featureset import FeatureSet
from mimic_core.scoring import direction
from mimic_core.scoring.inputs import Inputs, open_inputs
from mimic_core.scoring.job import Job
from mimic_core.scoring.labels.reference_head import Reference, make_reference, say
from mimic_core.scoring.snapshot import require_same_architecture
from mimic_core.scoring.training.check import objective_losses, self_check
from mimic_core.scoring.training.classifier_pair import pair_classifiers, require_layers
from mimic_core.scoring.training.compiling import compile_plain_parts
from mimic_core.scoring.training.distributed import Group
from mimic_core.scoring.training.objectives import LabelObjective, Objective, PairObjective
from mimic_core.scoring.training.splitting import (
    Split,
    held_out_rows,
    judged_by_column,
    require_division,
    split_samples,
)

SEGMENT_SAMPLES = 64


@dataclass(frozen=True)
class Setup:
    """Ready to train.

    ``model`` distinguishes the weights that training starts from; ``target`` holds the reference's
    values of the mimic layers, ``segment`` the mean losses on the way there. ``reference`` is the
    reference head of labelled images; ``clean_labels`` are the labels of the split's clean samples
    where they are not the pool's own.
    """

    config: RunConfig
    features: FeatureSet
    reading: str
    loader: SampleLoader
    module: nn.Module
    model: str
    objective: Objective
    target: Mapping[str, Tensor]
    split: Split
    segment: list[float]
    self_check: float
    reference: Reference | None = None
    clean_labels: list[str] | None = None

    @property
    def training(self) -> TrainConfig:
        """The settings, with none left open."""
        return training_of(self.config)

    @property
    def classes(self) -> tuple[str, ...]:
        """What the model's outputs stand for, in their order; empty for pairs."""
        return () if self.reference is None else self.reference.head.classes


@dataclass(frozen=True)
class _Models:
    """The trained module beside the reference's; ``head`` of labelled images."""

    module: nn.Module
    reference: nn.Module
    layers: tuple[str, ...]
    objective: PairObjective | LabelObjective
    head: Reference | None = None


def training_of(config: RunConfig) -> TrainConfig:
    """The training settings of a training run."""
    assert config.training is not None  # the caller has a training run
    return config.training


def prepare(job: Job, group: Group) -> Setup:
    """Open everything that the job names, fill the reference's features, split the pool.

    Raises:
        MimicError: The source, a model or a setting cannot be used.
    """
    config, progress = job.config, job.progress
    training = training_of(config)
    _require_clean_samples(config)
    group.require_even(training.batch_size)  # now, not after hours of reading the pool
    if not group.first:
        group.wait()  # until the first process has filled the features
    inputs = open_inputs(config, job.runs_root, job.device, progress)
    require_division(inputs.cached, training, config.head)
    early, loaded = None, _load_model(config, inputs)
    if inputs.source.task == "pairs":
        early = _pair_models(config, loaded, inputs)
        scores.task_vector(early.module, early.reference, early.layers)
    else:  # labelled images need the features first, for their head
        require_layers(loaded, training.mimic_layers)
    if group.first:
        inputs.fill(job.workers, progress)
        group.wait()
    models = early or _label_models(config, loaded, inputs, progress)
    progress.note(f"model: {training.model}; mimic layers: {', '.join(models.layers)}")
    return _setup(config, inputs, models, progress)


def _setup(config: RunConfig, inputs: Inputs, models: _Models, progress: Progress) -> Setup:
    """Check the models against the pool, divide it, and fix what the settings leave open."""
    training, layers = training_of(config), models.layers
    vector = scores.task_vector(models.module, models.reference, layers)
    checked = _check(models, vector, inputs.load_two())
    segment = _segment(models, vector, inputs.load_some(SEGMENT_SAMPLES))
    identity = weights_identity(models.module)
    if training.compile:
        progress.note(compile_plain_parts(models.module, models.objective, layers))
    temperature = training.temperature or default_temperature(config.reference)
    resolved = training.model_copy(update={"temperature": temperature, "mimic_layers": layers})
    split, clean_labels = _split(inputs.cached.samples, training, models.head, progress.note)
    return Setup(
        config=config.model_copy(update={"training": resolved}),
        reading=inputs.reading,
        features=inputs.cached,
        loader=features.loader_for(inputs.source, inputs.reference),
        module=models.module.requires_grad_(True),
        model=identity,
        objective=models.objective,
        target={name: models.reference.get_parameter(name).detach().clone() for name in layers},
        split=split,
        segment=segment,
        self_check=checked,
        reference=models.head,
        clean_labels=clean_labels,
    )


def _load_model(config: RunConfig, inputs: Inputs) -> LoadedModel:
    # Both models see the reference's images, so the model's own preprocessing is not asked for.
    return load_model(training_of(config).model, like=inputs.reference.preprocessing)


def _pair_models(config: RunConfig, loaded: LoadedModel, inputs: Inputs) -> _Models:
    training = training_of(config)
    if loaded.tokenizer is None:
        raise ModelError(
            "captions need a model with a text tower, which an image model has not",
            got=training.model,
            allowed="an open_clip model of the reference's architecture",
            next_step="choose one, or name the labels with --task labels and --label-column",
        )
    require_same_architecture(loaded.module, inputs.reference.module)
    module = loaded.module.to(inputs.device)
    layers = training.mimic_layers or default_mimic_layers(module)
    objective = PairObjective(inputs.device, config.precision)
    return _Models(module, inputs.reference.module, layers, objective)


def _label_models(
    config: RunConfig, loaded: LoadedModel, inputs: Inputs, progress: Progress
) -> _Models:
    training, device = training_of(config), inputs.device
    held = held_out_rows(inputs.cached.samples, training)
    head = make_reference(inputs.cached, config.head, inputs.reference, device, held_out=held)
    say(head.record, progress.note)
    head.head.numbers(inputs.cached.samples["label"].unique().to_list())  # held-out ones too
    model, reference = pair_classifiers(
        loaded, inputs.reference, head.head, seed=training.seed, note=progress.note
    )
    layers = training.mimic_layers or (f"{head_name(model)}.weight",)
    objective = LabelObjective(head.head.classes, device, config.precision)
    return _Models(model.to(device), reference, layers, objective, head)


def _check(models: _Models, vector: scores.TaskVector, two: LoadedBatch) -> float:
    """Scores of two samples against reverse mode, in full precision."""
    return self_check(models.module, replace(models.objective, precision="fp32"), two, vector)


def _split(
    samples: pl.DataFrame,
    training: TrainConfig,
    reference: Reference | None,
    note: Callable[[str], None],
) -> tuple[Split, list[str] | None]:
    """The pool divided; and the labels of the clean samples where they are not the pool's own."""
    if reference is None:
        return split_samples(samples, training), None
    split = split_samples(samples, training, classes=samples["label"], eligible=reference.scored)
    if training.held_out_label_column is not None:
        split = judged_by_column(split, samples, training.held_out_label_column, note)
        reference.head.numbers(split.held_out_labels or ())
    trusted = reference.trusted
    wanted = needs_comparison(training.weighting) == "clean"
    if not wanted or training.clean_column is not None or trusted is None:
        return split, None
    labels = trusted.relabelled(samples)
    clean = draw_clean(
        samples["uid"],
        trusted.rows,
        seed=training.seed,
        each=training.clean_per_class,
        classes=labels,
    )
    return replace(split, clean=clean), labels.gather(clean).to_list()


def _require_clean_samples(config: RunConfig) -> None:
    training = training_of(config)
    trusted = config.head is not None and config.head.uses_trusted
    wanted = needs_comparison(training.weighting) == "clean"
    if wanted and training.clean_column is None and not trusted:
        raise ConfigError(
            "the weighting influence compares with clean samples, and nothing says which are clean",
            got=None,
            allowed="--clean-column COLUMN=VALUE, or for labelled images --trusted",
            next_step="name a column of the pool and its value for clean samples",
        )


def _segment(models: _Models, vector: scores.TaskVector, batch: LoadedBatch) -> list[float]:
    return direction.module_segment(
        models.module,
        vector,
        batch,
        losses_of=lambda module, some: objective_losses(module, models.objective, some),
    )
