"""Labelled images: reference heads, classifiers on cached features."""
