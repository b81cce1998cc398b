"""Pictures, films and camera paths, made without a display."""
