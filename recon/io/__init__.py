"""Files: one codec for each format, and downloads."""
