"""Evaluation of each kind of result on disk: cameras, matches, flow, tracks, depth, surfaces, views, cost."""
