"""The pieces of the page Dynamics."""
