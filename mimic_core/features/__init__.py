"""One pass over the images fills feature sets."""

__all__ = ["encoders", "filling", "loading", "spot_check", "stored"]
