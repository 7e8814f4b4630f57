"""The words all rooms share: errors, settings, columns, files, draws, identity, progress."""

__all__ = ["config", "draws", "errors", "files", "identity", "progress", "schema"]
