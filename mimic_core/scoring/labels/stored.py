"""What a labelled probe leaves in the run directory besides scores: its reference head.

``reference_head.safetensors`` is all that live tuning needs; ``reference_labels.parquet`` says
which class the head gives each scored sample, and what it makes of the sample's own label.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import polars as pl
import torch

from mimic_core.base import files
from mimic_core.base.config import HeadConfig, ProbeConfig
from mimic_core.base.errors import RunError
from mimic_core.base.schema import JUDGED_COLUMNS
from mimic_core.features.stored import features_array
from mimic_core.models.load import LoadedModel
from mimic_core.runs.featureset import FeatureSet
from mimic_core.runs.record import HeadRecord
from mimic_core.runs.run import Run
from mimic_core.scoring.labels.class_head import HEAD_FILE, read_class_head, store_class_head
from mimic_core.scoring.labels.judgement import judged_labels
from mimic_core.scoring.labels.probe import LabelProbe
from mimic_core.scoring.labels.reference_head import Reference, make_reference
from mimic_core.sources.marks import trusted_samples


def file_identity(config: HeadConfig | None) -> str | None:
    """What distinguishes the content of a head's file; None without one."""
    if config is None or config.file is None:
        return None
    path = Path(config.file)
    if not path.is_file():
        return config.file  # a missing file is refused when it is read
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def start_label_probe(
    run: Run, features: FeatureSet, model: LoadedModel, device: torch.device
) -> tuple[LabelProbe, HeadRecord]:
    """Make the reference head of ``run``, store it, and begin a probe towards it."""
    config = run.record.config
    assert config.probe is not None  # labelled pools are scored by probes only
    reference = make_reference(features, config.head, model, device)
    store_reference(run, features, reference, reference.scored)
    probe = LabelProbe(
        features,
        reference.head,
        config.probe,
        scored=reference.scored,
        trusted=reference.trusted,
        device=device,
    )
    return probe, reference.record


def store_reference(run: Run, features: FeatureSet, reference: Reference, rows: np.ndarray) -> None:
    """Keep the reference head beside the scores, and what it makes of the samples at ``rows``.

    Args:
        rows: Ascending positions in the feature set, among those that the head may score.
    """
    store_class_head(run.path / HEAD_FILE, reference.head)
    classes = np.array(reference.head.classes, object)[reference.predicted]
    kept = classes[np.isin(reference.scored, rows)]
    uids = features.samples["uid"].gather(rows)
    predicted = {"uid": uids, "reference_label": kept.tolist()}
    named = pl.DataFrame(predicted, {"uid": pl.String(), "reference_label": pl.String()})
    told = named.hstack(judged_labels(features, reference, rows))
    files.write_parquet(run.path / "reference_labels.parquet", told)


def is_judged(run: Run) -> bool:
    """Whether ``run`` says what its reference head makes of the labels, as older ones do not."""
    labels = run.reference_labels
    return labels is not None and set(JUDGED_COLUMNS) <= set(labels.collect_schema().names())


def open_label_probe(run: Run, config: ProbeConfig) -> LabelProbe:
    """A probe with other settings towards the head that ``run`` has stored; no model is needed.

    Raises:
        RunError: The run has no such head.
    """
    path = run.path / HEAD_FILE
    if not path.exists():
        raise RunError(
            "the run holds no reference head",
            got=str(path),
            next_step="score the pool again with the command that made this run",
        )
    features, wanted = run.features, run.record.config.head
    width = features.array(features_array(features)).width
    head = read_class_head(path, width=width, labels=())
    trusted = trusted_samples(features.samples, wanted) if wanted and wanted.uses_trusted else None
    held_out = features.samples["uid"].is_in(run.held_out.implode())
    scored = np.flatnonzero(~held_out.to_numpy())
    return LabelProbe(features, head, config, scored=scored, trusted=trusted)
