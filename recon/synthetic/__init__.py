"""Rendered scenes with exact truth: shapes, materials, light, cameras, sensors, presets and difficulties."""
