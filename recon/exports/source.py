"""Reading of a run for exports: the scene of its model, its photos, its georeference."""

from __future__ import annotations

from pathlib import Path

from recon.core.colmap import read_reconstruction
from recon.errors import ReconError, UsageError
from recon.exports.files import MARK
from recon.exports.georeference import Georeference
from recon.exports.scene import Scene, scene_from_reconstruction
from recon.io.files import parse_json
from recon.run.folder import GEOREFERENCE, RunFolder


def open_run(root: Path) -> RunFolder:
    """Open a workspace, or a folder that is or holds a COLMAP model.

    Raises:
        ReconError: there is no model.
    """
    root = Path(root)
    if not root.is_dir():
        raise UsageError(f"{root}: there is no such folder; give a workspace or a folder with a COLMAP model")
    run = RunFolder(root)
    if run.model_folder is None:
        raise ReconError(
            f"{root}: has no cameras yet (sparse/0 is missing); run 'recon reconstruct' as far as stage map"
        )
    return run


def photo_folder(run: RunFolder) -> Path | None:
    """The folder of the photos of a run, None if nobody knows; what 'recon import' made knows where they are."""
    mark = run.path(MARK)
    if run.source is not None or run.has_photos or not mark.is_file():
        return run.source
    try:
        noted = parse_json(mark.read_text(encoding="utf-8")).get("photos")
    except ValueError:
        return None
    return Path(noted) if noted else None


def load_scene(run: RunFolder) -> Scene:
    """Read the cameras and points of a run.

    Raises:
        ReconError: the model cannot be read or has no posed photo.
    """
    assert run.model_folder is not None
    scene = scene_from_reconstruction(read_reconstruction(run.model_folder))
    if not scene.views:
        raise ReconError(f"{run.model_folder}: the model has no photo with a pose")
    return scene


def read_georeference(run: RunFolder) -> Georeference:
    """Read the georeference of a run.

    Raises:
        ReconError: there is none, or it is damaged.
    """
    path = run.path(GEOREFERENCE)
    try:
        return Georeference.from_json(parse_json(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ReconError(
            f"{path}: is not there; run 'recon georeference {run.root}' first, or leave out --georeferenced"
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise ReconError(
            f"{path}: is damaged ({error}); run 'recon georeference {run.root}' again"
        ) from error
