"""Figures of plain arrays: cutoffs, dynamics, detection, retention, agreement."""
