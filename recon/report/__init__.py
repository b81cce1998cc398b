"""The report of a run: one HTML file with everything a person wants to see of it."""
