"""From a model's name to a module: checkpoints, architectures, preprocessing, last projections."""
