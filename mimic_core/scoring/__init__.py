"""A pool becomes a run: probe, snapshot, labels and training, with a direction check."""

__all__ = ["labels", "pipeline", "probe", "projector", "snapshot", "training", "tuning"]
