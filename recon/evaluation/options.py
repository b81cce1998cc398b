"""Options of an evaluation of surfaces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recon.options import option


@dataclass(frozen=True)
class SurfaceOptions:
    """Options for comparing points and mesh with the truth."""

    cameras: Path | None = option(
        None, "COLMAP model of the cameras that made RUN, to align it by; a workspace has its own."
    )
    views: Path | None = option(
        None, "True cameras (cameras.json or COLMAP model), where --truth is a file: for what can be judged."
    )
    what: str = option("all", "points, mesh or all.")
    thresholds: str | None = option(
        None, "Distances, in metres where the truth is, else in its units.", metavar="A,B,…"
    )
    scale: float = option(1.0, "Multiply RUN's coordinates by this first.")
    seed: int = option(0, "Seed of the sampling.", min=0)
