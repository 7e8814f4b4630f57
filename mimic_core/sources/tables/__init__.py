"""Tables of any kind as Arrow columns."""

__all__ = ["delimited", "jsonlines", "loading"]
