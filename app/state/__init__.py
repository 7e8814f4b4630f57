"""What the app remembers for one browser tab: the only place that touches its state."""
