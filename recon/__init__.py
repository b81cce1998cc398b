"""recon: photos in, mesh out, by dense correspondence fields."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "match", "reconstruct"]


def __getattr__(name: str) -> Any:
    """Import the public functions on first use, so that ``import recon`` costs nothing."""
    if name in {"reconstruct", "match", "DenseOpticalFlow"}:
        from recon import api

        return getattr(api, name)
    raise AttributeError(f"module 'recon' has no attribute {name!r}")
