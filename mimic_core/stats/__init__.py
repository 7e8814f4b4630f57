"""Figures about columns and selections, from one place: what notebooks and the screen use.

By topic they are in the modules of this package; linked cutoffs are in ``mimic_core.cutoffs``.
"""

from __future__ import annotations

from mimic_core.stats.agreement import (
    Agreement,
    Quadrant,
    agreement,
    in_one_order,
    quadrants,
    rank_agreement,
)
from mimic_core.stats.detection import (
    ANY_NOISE,
    NOISY_SIDES,
    Detection,
    NoisySide,
    auroc,
    average_precision,
    detection,
    detection_table,
    kept_by_kind,
)
from mimic_core.stats.histograms import Histogram, category_counts, histogram
from mimic_core.stats.numbers import Values
from mimic_core.stats.retention import (
    QualityEstimate,
    RetentionCurve,
    quality_estimate,
    refitted_retention,
    retention_curve,
    share_is_fixed,
)

__all__ = [
    "ANY_NOISE",
    "NOISY_SIDES",
    "Agreement",
    "Detection",
    "Histogram",
    "NoisySide",
    "Quadrant",
    "QualityEstimate",
    "RetentionCurve",
    "Values",
    "agreement",
    "auroc",
    "average_precision",
    "category_counts",
    "detection",
    "detection_table",
    "histogram",
    "in_one_order",
    "kept_by_kind",
    "quadrants",
    "quality_estimate",
    "rank_agreement",
    "refitted_retention",
    "retention_curve",
    "share_is_fixed",
]
