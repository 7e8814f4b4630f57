"""Background jobs: detached workers and the table that knows them."""

__all__ = ["options", "processes", "record", "store", "worker"]
