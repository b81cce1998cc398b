"""Reading photos, orientation, masks, camera priors, pair selection."""
