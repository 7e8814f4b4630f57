"""The commands of ``python -m mimic_core``, and what they say on the terminal."""

__all__ = ["commands", "join", "prove", "recipes", "runs", "score", "terminal", "train"]
