"""Does a recipe help? Arms, held-out samples, trainings, intervals, words."""

__all__ = ["power", "prove", "record", "settings", "trusted", "words"]
