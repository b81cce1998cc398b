"""Runs stages in order, decides what is done, records timings. Knows nothing of photos or matching."""
