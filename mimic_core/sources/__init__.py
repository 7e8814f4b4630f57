"""A pool of any layout becomes samples and skips; images are read by locator."""

__all__ = ["images", "index", "marks", "opening", "path", "reading", "source"]
