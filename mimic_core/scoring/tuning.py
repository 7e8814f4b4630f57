"""Live tuning: a probe on cached features in memory, and how long it would take."""

from __future__ import annotations

import time

import polars as pl
import torch
import torch.nn.functional as F

from mimic_core.base.config import ProbeConfig
from mimic_core.features.stored import features_array, read_ends
from mimic_core.mimic.losses import clip_losses
from mimic_core.mimic.scores import gradient_norms, require_cosine_batch
from mimic_core.runs.featureset import FeatureSet
from mimic_core.runs.run import Run, epoch_frame
from mimic_core.scoring.labels.probe import LabelProbe
from mimic_core.scoring.labels.stored import open_label_probe
from mimic_core.scoring.probe import Probe


def tune(features: FeatureSet, config: ProbeConfig) -> pl.DataFrame:
    """Scores of a probe on cached features, in memory: what a run with ``config`` would store.

    Returns:
        One row per sample and epoch, columns of ``SCORE_COLUMNS``.
    """
    return _scores(Probe(features, config))


def tune_run(run: Run, config: ProbeConfig) -> pl.DataFrame:
    """The same for the samples of a run, labelled ones towards the run's own reference head."""
    if run.features.info.get("task") == "labels":
        return _scores(open_label_probe(run, config))
    return tune(run.features, config)


def _scores(probe: Probe | LabelProbe) -> pl.DataFrame:
    epochs = range(probe.config.epochs)
    return pl.concat(epoch_frame(epoch, probe.uids, probe.run(epoch)) for epoch in epochs)


def tuned_layers(run: Run, config: ProbeConfig) -> tuple[str, ...]:
    """The mimic layers of ``tune_run``: the last projection of the side that ``config`` names."""
    if run.features.info.get("task") == "labels":
        return run.record.mimic_layers
    return (read_ends(run.features).projections[config.side].name,)


def estimate_seconds(run: Run, config: ProbeConfig) -> float:
    """How long ``tune`` will take here, from its operation count and a small measurement.

    Raises:
        ScoreError: Method ``cos`` with more than ``COS_MAX_BATCH`` samples in a batch.
    """
    features = run.features
    samples = features.samples.height
    if run.record.reference_head is not None:
        width = features.array(features_array(features)).width
        products = 3 * samples * width * run.record.reference_head.classes * config.epochs
        steps = config.epochs * -(-samples // min(config.batch_size, samples))
        return products / _multiply_adds_per_second() + 1e-3 * steps
    batch = min(config.batch_size, samples)
    width = features.array(f"{config.side}_features").width
    embedding = features.array("image_embedding").width
    # Multiply-adds per step: three products with the projection, three with the logits' matrix,
    # whose elements cost as much again as about 200 multiply-adds each (exponentials, sums).
    step = 3 * batch * width * embedding + batch * batch * (3 * embedding + 200)
    steps = config.epochs * -(-samples // batch)
    overhead = 1e-3 * steps + 2e-6 * samples * config.epochs
    seconds = step * steps / _multiply_adds_per_second() + overhead
    if config.method == "cos":
        # Beside all that, one reverse pass per sample through the whole batch. These are small
        # kernels, which an operation count misses by a factor of ten, so one is timed instead.
        require_cosine_batch("cos", batch)
        seconds += batch * steps * _reverse_pass_seconds(batch, width, embedding)
    return seconds


def _reverse_pass_seconds(batch: int, width: int, embedding: int, *, passes: int = 8) -> float:
    """Time of one sample's gradient norm: ``batch`` samples with features of that ``width``."""
    weight = torch.ones(width, embedding).requires_grad_(True)
    unit = F.normalize(torch.ones(batch, width) @ weight, dim=1)
    losses = clip_losses(unit, torch.ones(batch, embedding), 1.0)
    _ = gradient_norms(losses[:1], [weight])  # also starts autograd's threads
    start = time.perf_counter()
    timed = gradient_norms(losses[:passes], [weight])
    return (time.perf_counter() - start) / len(timed)


def _multiply_adds_per_second(size: int = 512) -> float:
    square = torch.ones(size, size)
    _ = square @ square  # the first product also starts the threads
    start = time.perf_counter()
    _ = square @ square
    return float(size**3 / max(time.perf_counter() - start, 1e-9))
