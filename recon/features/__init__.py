"""Dense SIFT, interest points, scale propagation."""
