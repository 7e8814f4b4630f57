"""All that is on disk, read back: feature sets, records, runs, tables, means, history, map."""

__all__ = [
    "buckets",
    "featureset",
    "history",
    "imageless",
    "layout",
    "lock",
    "means",
    "metrics",
    "record",
    "report",
    "run",
    "scores",
    "stored",
    "table",
]
