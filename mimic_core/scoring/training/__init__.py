"""What a training run is made of: batches, steps, weightings, evaluation, checkpoints."""
