"""All that is on disk, read back: feature sets, records, runs, tables, means, history, map."""

__all__ = [
    "featureset",
    "history",
    "layout",
    "means",
    "metrics",
    "record",
    "report",
    "run",
    "scores",
    "table",
]
