"""A run as commands open it: a workspace, or any folder with a COLMAP model and photos beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import cv2  # noqa: F401  before pycolmap: see recon.sfm.adapter
import pycolmap

from recon.errors import ReconError, UsageError
from recon.exports.georeference import Georeference
from recon.exports.scene import Scene, scene_from_reconstruction
from recon.photos.types import Photo

MARK = "export.json"
"""Written into every export; only a folder that has it is ever replaced."""

GEOREFERENCE = "georeference.json"


@dataclass(frozen=True)
class Run:
    """A run as an export sees it: a workspace, or a COLMAP model with photos beside it.

    Attributes:
        photos: of the workspace by name; empty for a bare model.
        source: the photo folder of the run, None if nobody knows.
    """

    root: Path
    model: Path
    photos: dict[str, Photo] = field(default_factory=dict)
    source: Path | None = None


def open_run(root: Path) -> Run:
    """A workspace, or a folder that is or holds a COLMAP model.

    Raises:
        ReconError: there is no model.
    """
    from recon.engine.workspace import read_manifest
    from recon.stages.photos import PHOTO_SET, photo_set_from_json

    root = Path(root)
    if not root.is_dir():
        raise UsageError(f"{root}: there is no such folder; give a workspace or a folder with a COLMAP model")
    model = next(
        (
            folder
            for folder in (root / "sparse" / "0", root / "sparse", root)
            if any((folder / f"images{suffix}").is_file() for suffix in (".bin", ".txt"))
        ),
        None,
    )
    if model is None:
        raise ReconError(
            f"{root}: has no cameras yet (sparse/0 is missing); run 'recon reconstruct' as far as stage map"
        )
    photos: dict[str, Photo] = {}
    source = None
    manifest = read_manifest(root)
    if manifest is not None and (root / PHOTO_SET).is_file():
        try:
            photo_set = photo_set_from_json(json.loads((root / PHOTO_SET).read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError) as error:
            raise ReconError(
                f"{root / PHOTO_SET}: is damaged; run again with --restart-from photos"
            ) from error
        photos = {photo.name: photo for photo in photo_set.photos}
        source = Path(manifest.source) if manifest.source else None
    elif (root / "images").is_dir():
        source = root / "images"
    elif (root / MARK).is_file():  # what 'recon import' made knows where the photos are
        try:
            noted = json.loads((root / MARK).read_text(encoding="utf-8")).get("photos")
        except ValueError:
            noted = None
        source = Path(noted) if noted else None
    return Run(root, model, photos, source)


def load_scene(run: Run) -> Scene:
    """The cameras and points of a run.

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
    """The georeference of a run.

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
