"""Meshing and cleaning."""
