"""A selection as files, each with a manifest that replays."""

__all__ = ["export", "formats", "original_table", "record", "settings"]
