"""Training of the project's networks on data that the user names."""
