"""What each kind of result on disk says of a run: cameras, matches, flow, tracks, depth, surfaces, views, cost."""
