"""Confident learning: which labels are probably wrong, from out-of-sample probabilities.

Northcutt, Jiang and Chuang, arXiv 1911.00068: a class's threshold is the mean probability that its
own samples get; samples that reach the threshold of another class are counted in the confident
joint, whose rows are calibrated to the counts of the labels; and as many samples of each pair of
classes are pruned as it says, those with the largest margin first ("prune by noise rate", which is
what cleanlab does where it is not told otherwise). As there, too, a label that is the likeliest
class is never an issue.

Probabilities must come from a model that was not trained on the samples. Letters: N samples,
N_k those of one class, C classes. Any float dtype; counts are int64.
"""

from __future__ import annotations

import numpy as np

from mimic_core.base.errors import MimicError

# Rounding must not keep a sample below a threshold that all samples of its class reach exactly.
_SLACK = 1e-6
_LEAST = 2e-6  # thresholds are at least that, so that a slack below it is not "any probability"


def label_issues(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which labels are probably wrong, (N,) bool.

    Args:
        probabilities: (N, C), finite, in each row from 0 to 1.
        labels: Class numbers (N,) int64. A class may have no samples.

    Raises:
        MimicError: The shapes do not fit, a label is no class number, or a probability is none.
    """
    _require_probabilities(probabilities, labels)
    own = probabilities[np.arange(len(labels)), labels]
    thresholds = confident_thresholds(own, labels, classes=probabilities.shape[1])
    found = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        found[rows] = issues_of_class(probabilities[rows], int(label), thresholds)
    return found


def confident_thresholds(own: np.ndarray, labels: np.ndarray, *, classes: int) -> np.ndarray:
    """Of each class the mean probability that its samples get for it, (C,) float64.

    Args:
        own: Probability (N,) of each sample's own label.
        labels: Class numbers (N,).
        classes: C; the threshold of a class without samples is infinite: nobody is counted for it.
    """
    counts = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, weights=own, minlength=classes)
    means = np.full(classes, np.inf)
    np.divide(sums, counts, out=means, where=counts > 0)
    thresholds: np.ndarray = np.maximum(means, _LEAST)
    return thresholds


def issues_of_class(probabilities: np.ndarray, label: int, thresholds: np.ndarray) -> np.ndarray:
    """Which of the samples labelled ``label`` are issues, (N_k,) bool.

    Samples with the same margin as the last one pruned are pruned too, whatever the count.

    Args:
        probabilities: (N_k, C) of the samples with that label, all of them.
        label: The class number.
        thresholds: (C,), see ``confident_thresholds``.
    """
    likeliest = probabilities.argmax(1)
    to_prune = calibrated_counts(probabilities, label, thresholds)
    if to_prune[label] < 1:  # one at least is kept
        to_prune[to_prune.argmax()] -= 1
    to_prune[label] = 0
    found = np.zeros(len(probabilities), bool)
    for other in np.flatnonzero(to_prune):
        margins = probabilities[:, other] - probabilities[:, label]
        place = len(margins) - to_prune[other]
        found |= margins >= np.partition(margins, place)[place]
    found &= likeliest != label
    return found


def calibrated_counts(probabilities: np.ndarray, label: int, thresholds: np.ndarray) -> np.ndarray:
    """How many of the samples labelled ``label`` are of each class, (C,) int64 with the sum N_k.

    The row of the confident joint, calibrated to the count of the label. A sample counts for the
    one class whose threshold it reaches or, where there are several, for its likeliest class; at
    least one counts for the label itself.

    Args: as ``issues_of_class``.
    """
    confident = probabilities >= thresholds - _SLACK
    reached = confident.sum(1)
    guessed = np.where(reached > 1, probabilities.argmax(1), confident.argmax(1))[reached > 0]
    joint = np.bincount(guessed, minlength=probabilities.shape[1])
    joint[label] = max(joint[label], 1)
    return _rounded(joint / joint.sum() * len(probabilities))


def _rounded(values: np.ndarray) -> np.ndarray:
    """Whole numbers with the sum of ``values`` (C,), each less than 1 from its value.

    Rounded to the nearest; what is missing is added where rounding took the most, and the other
    way round; of equals the last are changed first (the first, where something is taken).
    """
    whole = values.round()
    missing = round(float(values.sum() - whole.sum()))
    if missing:
        by_rest = np.argsort(values - whole, kind="stable")
        changed = by_rest[::-1][:missing] if missing > 0 else by_rest[:-missing]
        whole[changed] += np.sign(missing)
    counts: np.ndarray = whole.astype(np.int64)
    return counts


def _require_probabilities(probabilities: np.ndarray, labels: np.ndarray) -> None:
    problem: str | None = None
    got: object = None
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        problem, got = "the shapes do not fit", f"{probabilities.shape} and {labels.shape}"
    elif len(labels) and not 0 <= labels.min() <= labels.max() < probabilities.shape[1]:
        problem, got = "a label is no class number", f"{labels.min()} to {labels.max()}"
    elif not ((probabilities >= 0) & (probabilities <= 1)).all():
        problem, got = "a probability is none", probabilities[~(probabilities >= 0)][:1]
    if problem is not None:
        raise MimicError(
            f"wrong labels cannot be looked for: {problem}",
            got=got,
            allowed="probabilities (N, C) from 0 to 1, and labels (N,) from 0 to C - 1",
            next_step="correct the arrays",
        )
