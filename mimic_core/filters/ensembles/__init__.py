"""How steps become votes: cutoffs for each step, and a model of the votes."""

__all__ = ["binarise", "config", "ensemble", "splits"]
