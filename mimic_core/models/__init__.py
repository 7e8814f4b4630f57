"""A name becomes a frozen module: loading, layers, devices, preprocessing, projections."""

__all__ = [
    "building",
    "checkpoints",
    "class_names",
    "classifiers",
    "clip",
    "devices",
    "layers",
    "load",
    "names",
    "preprocessing",
    "projections",
]
