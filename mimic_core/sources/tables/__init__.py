"""Tables of any kind as Arrow columns."""
