"""Results in the formats of other programs, and the way back; where the scene lies on the Earth."""
