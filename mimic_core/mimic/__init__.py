"""The heart: losses, task vector, mimic scores and weights, geometry. It knows no file."""

__all__ = ["adamw", "contrastive", "forward_mode", "geometry", "losses", "scores", "weightings"]
