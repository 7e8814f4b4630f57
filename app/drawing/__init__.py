"""Tables become figures and pictures."""
