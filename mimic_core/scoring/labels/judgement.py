"""What the reference head makes of each label: its loss, whether it agrees, and label issues.

Out of sample only: a sample that the head was trained on is not judged, because a head agrees with
what it was shown. Letters: N samples, M judged ones, C classes.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mimic_core.base.schema import JUDGED_COLUMNS
from mimic_core.features.stored import Rows, features_array
from mimic_core.mimic.losses import widened
from mimic_core.runs.featureset import FeatureSet
from mimic_core.scoring.labels.class_head import ClassHead
from mimic_core.scoring.labels.reference_head import Reference
from mimic_core.stats.label_issues import confident_thresholds, issues_of_class

_BLOCK = 65_536


def judged_labels(features: FeatureSet, reference: Reference, places: np.ndarray) -> pl.DataFrame:
    """``JUDGED_COLUMNS`` of the samples at ``places`` (N,), in their order.

    Null for the samples that trained the head; the others alone decide about label issues.

    Args:
        places: Positions in the feature set, among those that the head may score.
    """
    trained = np.array([], np.int64) if reference.trusted is None else reference.trusted.rows
    judged = np.flatnonzero(~np.isin(places, trained))
    mine = places[judged]
    numbers = reference.head.numbers(features.samples["label"].gather(mine).to_list())
    labels = np.array(numbers, np.int64)
    rows = Rows(features, features_array(features), reference.head.weight.device)
    losses = _losses(reference.head, rows, mine, labels)
    agrees = reference.predicted[np.searchsorted(reference.scored, mine)] == labels
    # The likeliest class is never an issue, also where other blocks round to another likeliest.
    issues = _issues(reference.head, rows, mine, labels, np.exp(-losses)) & ~agrees
    found = {"reference_loss": losses, "reference_agrees": agrees, "label_issue": issues}
    there = pl.DataFrame(found, schema=JUDGED_COLUMNS)
    null = pl.DataFrame(schema=JUDGED_COLUMNS).clear(len(places) - len(judged))
    back = np.argsort(np.concatenate([judged, np.setdiff1d(np.arange(len(places)), judged)]))
    return pl.concat([there, null])[back]


def _losses(head: ClassHead, rows: Rows, places: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross-entropy (M,) float64 of each label."""
    parts = [np.empty(0)]
    for start in range(0, len(places), _BLOCK):
        own = labels[start : start + _BLOCK]
        logs = _log_probabilities(head, rows, places[start : start + _BLOCK])
        parts.append(-logs[torch.arange(len(own)), torch.from_numpy(own)].numpy())
    return np.concatenate(parts)


def _issues(
    head: ClassHead, rows: Rows, places: np.ndarray, labels: np.ndarray, own: np.ndarray
) -> np.ndarray:
    """Label issues (M,) bool, class by class, so that memory holds the samples of one class."""
    thresholds = confident_thresholds(own, labels, classes=len(head.classes))
    found = np.zeros(len(places), bool)
    by_label = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels))
    for part in np.split(by_label, ends[:-1]):
        if not len(part):
            continue
        blocks = np.split(places[part], range(_BLOCK, len(part), _BLOCK))
        logs = torch.cat([_log_probabilities(head, rows, block) for block in blocks])
        found[part] = issues_of_class(logs.exp().numpy(), int(labels[part[0]]), thresholds)
    return found


def _log_probabilities(head: ClassHead, rows: Rows, places: np.ndarray) -> Tensor:
    """(B, C) float64, CPU."""
    return widened(head.logits(rows.take(places))).cpu().log_softmax(1)
