"""Background jobs: detached workers and the table that knows them."""

__all__ = ["processes", "record", "store", "worker"]
