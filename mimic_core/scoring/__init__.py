"""A pool becomes a run: probe, snapshot, labels and training, with a direction check."""

__all__ = ["labels", "learner", "pipeline", "probe", "snapshot", "training", "tuning"]
