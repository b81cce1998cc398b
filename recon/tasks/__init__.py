"""Tasks: the work on one photo, pair, loop or part of a cloud, as stages hand it to threads or to a cluster."""
