"""Cameras, meshes, clouds, transforms and the small arithmetic that all rooms share; imports no other room."""
