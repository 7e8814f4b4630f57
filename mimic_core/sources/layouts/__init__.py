"""One layout of a pool, one module."""

__all__ = ["parquet", "table"]
