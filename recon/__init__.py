"""recon: photos in, mesh out, by dense correspondence fields."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["DenseOpticalFlow", "ScaleMap", "SiftImageExtractor", "__version__", "match", "reconstruct"]


def __getattr__(name: str) -> Any:
    """Import the public functions on first use, so that ``import recon`` costs nothing."""
    if name in {"reconstruct", "match", "DenseOpticalFlow"}:
        return getattr(import_module("recon.api"), name)
    if name in {"ScaleMap", "SiftImageExtractor"}:
        return getattr(import_module("recon.matching.opencv_sift_images"), name)
    raise AttributeError(f"module 'recon' has no attribute {name!r}")
