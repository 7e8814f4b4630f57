"""One pass over the images fills feature sets."""
