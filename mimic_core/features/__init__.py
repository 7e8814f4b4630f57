"""One pass over the images fills feature sets."""

__all__ = [
    "encoders",
    "filling",
    "imageless",
    "loading",
    "own",
    "portions",
    "shard",
    "spot_check",
    "stored",
]
