"""One layout of a pool, one module."""
