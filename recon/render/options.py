"""Options of films and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recon.options import option

LAYERS = ("textured", "mesh", "dense", "sparse")


@dataclass(frozen=True)
class RenderOptions:
    """Choices of a user about a rendering."""

    trajectory: str = option(
        "orbit",
        "orbit, photos, front, oblique, top, or a FILE with poses (TUM text, transforms.json, a COLMAP model).",
    )
    layer: str | None = option(
        None, f"What to draw: {', '.join(LAYERS)}; the first of these that is there by default."
    )
    shaded: bool = option(False, "Draw the mesh as grey clay.", flags=("--shaded",))
    cameras: bool = option(False, "Draw the photos where they were taken.", flags=("--cameras",))
    stills: int | None = option(None, "So many pictures, evenly along the way, instead of a video.", min=1)
    at: float | None = option(
        None,
        "Where on the way a single picture is taken; 0.5, the middle, by default.",
        min=0.0,
        max=1.0,
    )
    size: str = option("960x540", "Of the pictures, pixels.", metavar="WIDTHxHEIGHT")
    fps: float = option(30.0, "Pictures per second of a video.", min=1.0, max=240.0)
    seconds: float | None = option(
        None, "Length of a video; by default 8, and a second per photo on their way.", min=0.1
    )
    background: str = option("white", "white, black, or a colour as RRGGBB.")
    distance: float | None = option(
        None, "Distance of an orbit over that of the photos: 1, with --cameras 1.8.", min=0.2
    )
    samples: int = option(2, "Rays per pixel and axis against jagged edges.", min=1, max=4)
    photos: Path | None = option(None, "Where the photos are, if they moved.", metavar="DIR")
    threads: int | None = option(None, "Pictures drawn at a time; all cores by default.", min=1)
