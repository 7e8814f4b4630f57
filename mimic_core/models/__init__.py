"""A name becomes a frozen module: loading, layers, devices, preprocessing, projections."""

__all__ = [
    "checkpoints",
    "class_names",
    "classifiers",
    "clip",
    "devices",
    "layers",
    "load",
    "open_clip_models",
    "preprocessing",
    "projections",
]
