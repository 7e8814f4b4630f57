"""What recipes are made of, and how a table is voted on."""
