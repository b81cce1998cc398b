"""The one door to a run on disk, for reading and for writing, and what the user gave to it."""
