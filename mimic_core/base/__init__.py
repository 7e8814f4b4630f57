"""The words all rooms share: errors, settings, columns, files, draws, identity, progress."""
