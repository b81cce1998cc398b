"""Two-view geometry, the view graph and tracks."""
