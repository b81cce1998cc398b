"""Cameras, meshes and geometry that every room shares."""
