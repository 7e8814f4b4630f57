"""The pieces of the page Train."""
