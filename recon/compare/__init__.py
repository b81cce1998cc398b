"""Matchers compared by the geometry they give: the same pipeline, one result a matcher, one report."""
