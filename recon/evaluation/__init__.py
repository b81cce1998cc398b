"""Metrics of poses, flow, depth and surfaces."""
