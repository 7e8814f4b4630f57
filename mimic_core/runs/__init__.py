"""All that is on disk, read back: feature sets, records, runs, tables, means, history, map."""
