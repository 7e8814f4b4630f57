"""Labelled images: reference heads, classifiers on cached features."""

__all__ = ["class_head", "probe"]
