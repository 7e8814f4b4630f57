"""What the app keeps between reruns. Keys are ids or frozen settings, never a frame."""
