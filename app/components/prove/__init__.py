"""The pieces of the page Prove."""
