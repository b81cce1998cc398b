"""The adapter of pycolmap, mapping, and sub-pixel track refinement."""
