"""The words all rooms share: errors, settings, columns, files, draws, identity, progress."""

__all__ = [
    "config",
    "draws",
    "errors",
    "fields",
    "files",
    "identity",
    "progress",
    "remote",
    "schema",
    "specification",
]
