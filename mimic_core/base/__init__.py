"""The words all rooms share: errors, settings, columns, files, draws, identity, progress."""

__all__ = [
    "blocks",
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
    "storage",
]
