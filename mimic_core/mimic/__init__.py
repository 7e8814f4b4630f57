"""The heart: losses, task vector, mimic scores and weights, geometry. It knows no file."""
