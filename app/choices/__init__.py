"""What a click does to a recipe: plain functions."""
