"""A pool becomes a run: probe, snapshot, labels and training, with a direction check."""
