"""Triangulation from flow, depth refinement and fusion."""
