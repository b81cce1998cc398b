"""Hyperpixels: matching with dynamically or statically chosen layers of an image classifier."""
