"""Runs stages in order; knows nothing of photos or matching."""
