"""Opening what is to be shown: a run, a COLMAP model, a cloud or a mesh."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from recon.core.frames import offset_to_origin
from recon.errors import ReconError, UsageError
from recon.exports.source import load_scene, open_run, photo_folder, read_georeference
from recon.render.scene import (
    MESH_SUFFIXES,
    UnreadCloud,
    ViewCloud,
    ViewMesh,
    ViewScene,
    file_scene,
    photos_of_scene,
    read_view_cloud,
    read_view_mesh,
    scene_up,
)
from recon.run.folder import GEOREFERENCE, RunFolder
from recon.run.state import old_results

_MESHES = ("textured.glb", "textured.obj", "mesh.glb", "mesh.ply")
"""Files of a run's mesh folder, the best to look at first."""
_SHOWN = ("sparse/0", "dense/points.ply", "mesh/mesh.ply", "mesh/textured.glb", "mesh/textured.obj")
"""Results of a run that are shown; one of an earlier state is shown with a note."""


def open_view_scene(path: Path, photos: Path | None = None, first: int | None = None) -> ViewScene:
    """Open all there is to see of a run folder, a COLMAP model folder, or a .ply, .obj or .glb file.

    Args:
        photos: folder of the photos, if they are not where they were.
        first: of a dense cloud that is far larger only a sample of about so many points is read at first.

    Raises:
        UsageError: the path or the photo folder is not there.
        ReconError: nothing in it can be shown.
    """
    if photos is not None and not photos.is_dir():
        raise UsageError(f"--photos {photos}: there is no such folder")
    if path.is_file():
        if path.suffix.lower() not in MESH_SUFFIXES:
            raise ReconError(
                f"{path}: cannot be shown; give a run, a COLMAP model, a .ply, an .obj or a .glb"
            )
        return file_scene(path, first)
    if not path.exists():
        raise UsageError(f"{path}: there is no such file or folder")
    scene = _of_folder(path, photos, first)
    return replace(scene, notes=(*old_results(path, _SHOWN), *scene.notes))


def _of_folder(path: Path, photos: Path | None, first: int | None) -> ViewScene:
    cloud_file, mesh_file = path / "dense" / "points.ply", _mesh_file(path)
    try:
        run = open_run(path)
    except ReconError as error:
        if not cloud_file.is_file() and mesh_file is None:
            raise ReconError(
                f"{path}: holds nothing to show; give a run, a COLMAP model, a .ply, an .obj or a .glb"
            ) from error
        return _without_cameras(path, cloud_file, mesh_file, first)
    return _of_run(run, cloud_file, mesh_file, photos, first)


def _of_run(
    run: RunFolder, cloud_file: Path, mesh_file: Path | None, photos: Path | None, first: int | None
) -> ViewScene:
    scene = load_scene(run)
    offset = offset_to_origin(np.array([view.center for view in scene.views]))
    if offset.any():
        scene = scene.moved(1.0, np.eye(3), -offset)
    file_of, missing = _photo_files(run, photos)
    shown = photos_of_scene(scene, file_of, lambda name: run.photos[name].id if name in run.photos else None)
    notes = missing([photo.name for photo in shown if photo.path is None])
    georeference = read_georeference(run) if (run.root / GEOREFERENCE).is_file() else None
    dense, dense_notes, unread = _cloud(cloud_file, offset, first)
    mesh, mesh_notes = _mesh(mesh_file, offset)
    return ViewScene(
        _name(run.root),
        shown,
        scene,
        dense,
        mesh,
        offset,
        scene_up([photo.view for photo in shown], georeference),
        georeference,
        (*notes, *dense_notes, *mesh_notes),
        unread,
    )


def _without_cameras(path: Path, cloud_file: Path, mesh_file: Path | None, sample: int | None) -> ViewScene:
    """A folder with points or a mesh, but no cameras."""
    first = file_scene(cloud_file if cloud_file.is_file() else mesh_file or cloud_file, sample)
    mesh, notes = _mesh(mesh_file, first.offset)
    note = f"{path}: has no cameras (sparse/0 is missing): only points and mesh are shown"
    return replace(first, name=_name(path), mesh=mesh, notes=(note, *first.notes, *notes))


def _cloud(
    path: Path, offset: np.ndarray, first: int | None
) -> tuple[ViewCloud | None, tuple[str, ...], UnreadCloud | None]:
    return read_view_cloud(path, offset, first) if path.is_file() else (None, (), None)


def _mesh(path: Path | None, offset: np.ndarray) -> tuple[ViewMesh | None, tuple[str, ...]]:
    if path is None:
        return None, ()
    _, mesh, notes = read_view_mesh(path, in_model=True)
    return mesh(offset), notes


def _mesh_file(root: Path) -> Path | None:
    return next((root / "mesh" / name for name in _MESHES if (root / "mesh" / name).is_file()), None)


def _name(root: Path) -> str:
    return root.resolve().name or str(root)


def _photo_files(
    run: RunFolder, photos: Path | None
) -> tuple[Callable[[str], Path | None], Callable[[list[str]], tuple[str, ...]]]:
    """Find the files of the photos, and the words for those that are missing."""
    folder = photos or photo_folder(run)

    def file_of(name: str) -> Path | None:
        candidates = [folder / name] if folder is not None else []
        if name in run.photos and photos is None:
            candidates.insert(0, run.photo_png(name))
        return next((path for path in candidates if path.is_file()), None)

    def missing(names: list[str]) -> tuple[str, ...]:
        if not names:
            return ()
        where = "nobody knows where they were" if folder is None else f"expected in {folder}"
        return (
            f"{len(names)} photos are not there ({where}; for example {names[0]}): cameras are shown without "
            "them; give --photos DIR",
        )

    return file_of, missing
