"""Options of exports, imports and georeferencing, and what they report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recon.options import option

FORMATS = (
    "colmap",
    "colmap-text",
    "nerfstudio",
    "openmvg",
    "openmvg-lists",
    "openmvs",
    "bundler",
    "pmvs",
    "meshroom",
    "ply",
    "las",
    "obj",
    "glb",
)
"""Names of the formats; ``recon.exports.exporting`` has what writes them."""

PHOTOS_HELP = "Where the photos are now, if they moved since the run."

GRAVITY = ("auto", "exif", "photos", "plane", "none")


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export."""

    photos: Path | None = option(None, PHOTOS_HELP, metavar="DIR")
    size: str = option("working", "working: photos as the run used them; original: at their full size.")
    images: bool = option(True, "Write the photos into the export.", flags=("--images/--no-images",))
    undistort: bool = option(False, "Undistort the photos; cameras become pinholes.")
    georeferenced: bool = option(False, "In the frame of OUT/georeference.json (see 'recon georeference').")


@dataclass(frozen=True)
class GeoreferenceOptions:
    """Options for georeferencing a scene."""

    control: Path | None = option(
        None,
        "Control points: a CSV with name, X, Y, Z, photo, x, y (one row a sighting), OpenDroneMap's gcp_list.txt, or "
        "Metashape's markers.",
        metavar="FILE",
    )
    marks: Path | None = option(
        None,
        "Where photos show the control points, in a file of its own; OUT/marks.csv by default, where it is.",
        metavar="FILE",
    )
    check: str = option("", "Control points that only check: their names.", metavar="NAME,NAME")
    adjust: bool = option(
        True,
        "Let control points and exact GPS take part in the bundle adjustment; else only a similarity is fitted.",
        flags=("--adjust/--no-adjust",),
    )
    control_error: float = option(
        0.02, "What control points err by, metres, where their file does not say.", min=1e-6
    )
    mark_error: float = option(0.5, "What marks in photos err by, pixels of the photo.", min=0.01)
    length: str | None = option(
        None, "One known length, between two photos or two points of --points.", metavar="A,B=METRES"
    )
    points: Path | None = option(None, "Points for --length: CSV with name, photo, x, y.", metavar="FILE")
    level: bool = option(False, "Only turn z up; the scale stays that of the run.", flags=("--level",))
    crs: str = option(
        "auto", "GPS: utm (the default) or enu. Control points: EPSG:CODE, or nothing for a local frame."
    )
    gravity: str = option(
        "auto", f"What says where up is, where it is needed: {', '.join(GRAVITY[:-1])} or none."
    )
    gps_error: float = option(5.0, "What GPS errs by, metres, horizontally.", min=0.001)
    photos: Path | None = option(None, PHOTOS_HELP, metavar="DIR")
    seed: int = option(0, "Seed of the robust fit.", min=0)


@dataclass(frozen=True)
class ExportReport:
    """List of what was written, and notes for the user."""

    what: str
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()
