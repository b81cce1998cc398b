"""The live viewer: a scene in the browser, drawn by viser."""
