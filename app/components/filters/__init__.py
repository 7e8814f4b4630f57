"""The pieces of the page Filters."""
