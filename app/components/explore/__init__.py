"""The pieces of the page Explore."""
