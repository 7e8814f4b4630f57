"""One layout of a pool, one module."""

__all__ = ["embedded", "table"]
