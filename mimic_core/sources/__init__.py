"""A pool of any layout becomes samples and skips; images are read by locator."""

__all__ = [
    "by_uid",
    "images",
    "index",
    "joining",
    "layouts",
    "marks",
    "opening",
    "path",
    "reading",
    "source",
    "tables",
]
