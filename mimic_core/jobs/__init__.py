"""Background jobs: detached workers and the table that knows them."""
