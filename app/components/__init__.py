"""Pieces of pages: each draws one thing and writes what the user does into the session."""
