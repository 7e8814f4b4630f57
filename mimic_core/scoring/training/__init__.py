"""Training runs: batches, steps, evaluation, checkpoints."""

__all__ = [
    "check",
    "comparison",
    "data",
    "distributed",
    "evaluation",
    "objectives",
    "optimisation",
    "step",
    "train",
]
