"""Maps of a scene: surface model, orthophoto, contours, volumes, coded targets."""
