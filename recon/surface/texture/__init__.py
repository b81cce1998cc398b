"""Textures from photos: simplification, best view per face, charts, colour correction, files."""
