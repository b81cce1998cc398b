"""A run as exports read it: a workspace, or any folder with a COLMAP model and photos beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from recon.core.colmap import pycolmap
from recon.errors import ReconError
from recon.exports.georeference import Georeference
from recon.exports.scene import Scene, scene_from_reconstruction
from recon.photos.types import Photo

GEOREFERENCE = "georeference.json"


@dataclass(frozen=True)
class Run:
    """A workspace, or a COLMAP model with photos beside it.

    Attributes:
        photos: of the workspace by name; empty for a bare model.
        source: the photo folder of the run, None if nobody knows.
        pictures, masks: files of the workspace with a photo's pixels as the run used them, and its mask, by name.
    """

    root: Path
    model: Path
    photos: dict[str, Photo] = field(default_factory=dict)
    source: Path | None = None
    pictures: dict[str, Path] = field(default_factory=dict)
    masks: dict[str, Path] = field(default_factory=dict)


def load_scene(run: Run) -> Scene:
    """Read the cameras and points of a run.

    Raises:
        ReconError: the model cannot be read or has no posed photo.
    """
    try:
        model = pycolmap.Reconstruction(str(run.model))
    except (ValueError, RuntimeError) as error:
        raise ReconError(f"{run.model}: the COLMAP model cannot be read ({error})") from error
    scene = scene_from_reconstruction(model)
    if not scene.views:
        raise ReconError(f"{run.model}: the model has no photo with a pose")
    return scene


def read_georeference(run: Run) -> Georeference:
    """Read the georeference of a run.

    Raises:
        ReconError: there is none, or it is damaged.
    """
    path = run.root / GEOREFERENCE
    try:
        return Georeference.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ReconError(
            f"{path}: is not there; run 'recon georeference {run.root}' first, or leave out --georeferenced"
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise ReconError(
            f"{path}: is damaged ({error}); run 'recon georeference {run.root}' again"
        ) from error
