"""The Matcher contract, SIFT Flow, baselines and two-sided consistency."""
