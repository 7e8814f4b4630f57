"""Figures of plain arrays: cutoffs, dynamics, detection, retention, agreement."""

__all__ = [
    "agreement",
    "cutoffs",
    "detection",
    "direction",
    "dynamics",
    "histograms",
    "label_issues",
    "retention",
]
