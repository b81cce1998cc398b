"""Options of maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recon.options import option

SURFACES = ("auto", "depth", "mesh")
PLANES = ("auto", "ground", "facade")


@dataclass(frozen=True)
class OrthoOptions:
    """Choices of a user about an orthophoto and its surface model."""

    gsd: float | None = option(
        None, "Side of a cell in the frame's units (metres); what the photos resolve by default.", min=1e-9
    )
    plane: str = option(
        "auto",
        "What is mapped onto: ground (seen from above), facade (an elevation), or X,Y,Z, a direction in the frame "
        "that points to the viewer; auto asks the photos.",
    )
    surface: str = option(
        "auto", "Heights from depth maps or from the mesh; auto takes depth and fills with the mesh."
    )
    bounds: str | None = option(
        None, "Only this part, in the map's coordinates.", metavar="WEST,SOUTH,EAST,NORTH"
    )
    size: str = option(
        "working", "working: photos as the run used them; original: at their full size, for a finer map."
    )
    png: bool = option(True, "Also a PNG with a world file.", flags=("--png/--no-png",))
    tile: int = option(512, "Cells along a side of what is worked on at once.", min=64, max=4096)
    photos: Path | None = option(
        None, "Where the photos are now, if they moved since the run.", metavar="DIR"
    )


@dataclass(frozen=True)
class ContourOptions:
    """Choices of a user about contour lines."""

    interval: float | None = option(
        None, "Height between two lines; about twelve over the map by default.", min=1e-6
    )
    smooth: float = option(2.0, "Heights are averaged over so many cells first; 0 for not at all.", min=0.0)
    shortest: float = option(20.0, "Lines shorter than so many cells are left out.", min=0.0)


@dataclass(frozen=True)
class VolumeOptions:
    """Choices of a user about volumes."""

    polygon: Path | None = option(
        None, "GeoJSON with polygons, in the map's coordinates or in degrees.", metavar="FILE"
    )
    base: str = option("boundary", "boundary: a plane through the surface along the polygon; or a height.")


@dataclass(frozen=True)
class TargetOptions:
    """Choices of a user about coded targets."""

    family: str = option(
        "auto",
        "auto, 4x4_50, 5x5_100, 6x6_250 (ArUco), apriltag_36h11, apriltag_25h9 or apriltag_16h5.",
    )
    prefix: str = option("T", "Before the number of a target, in its name.")
    photos: Path | None = option(
        None, "Where the photos are now, if they moved since the run.", metavar="DIR"
    )
