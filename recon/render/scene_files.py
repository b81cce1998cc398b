"""Opening what is to be shown: a run, a COLMAP model, a cloud or a mesh."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8

from recon.core.cameras import PinholeView
from recon.core.frames import offset_to_origin, up_of_photos
from recon.core.mesh import PointCloud, VertexMesh
from recon.errors import ReconError, UsageError, reading
from recon.exports.georeference import Georeference
from recon.exports.precision import find_precision
from recon.exports.scene import Scene
from recon.exports.source import load_scene, open_run, photo_folder, read_georeference
from recon.io.glb import model_from_scene, read_glb
from recon.io.surfaces import ply_elements, read_mesh, read_ply_vertices
from recon.io.textured_mesh import read_mesh_file
from recon.render.scene import UnreadCloud, ViewPhoto, ViewScene
from recon.run.folder import GEOREFERENCE, MARKS, RunFolder
from recon.run.state import old_results

MESH_SUFFIXES = (".ply", ".obj", ".glb")

# A cloud is sampled first if it has so many times the points of the sample.
_FAR_LARGER = 4
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
        return _of_file(path, first)
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
    scene = whole = load_scene(run)
    offset = offset_to_origin(np.array([view.center for view in scene.views]))
    if offset.any():
        scene = scene.moved(1.0, np.eye(3), -offset)
    shown, notes = _photos(run, scene, photos)
    georeference = read_georeference(run) if run.path(GEOREFERENCE).is_file() else None
    dense, unread = None, None
    if cloud_file.is_file():
        dense, more, unread = read_view_cloud(cloud_file, offset, first)
        notes += more
    mesh, more = _mesh(mesh_file, offset)
    up = _up_of([photo.view for photo in shown], georeference)
    return ViewScene(
        _name(run.root), shown, scene, dense, mesh, offset, up, georeference, notes + more, unread,
        lambda: find_precision(run, whole, georeference), run.path(MARKS),
    )  # fmt: skip


def _photos(
    run: RunFolder, scene: Scene, photos: Path | None
) -> tuple[tuple[ViewPhoto, ...], tuple[str, ...]]:
    """Find the photos of a model (its offset taken away) and their files; also the notes of those missing."""
    folder = photos or photo_folder(run)
    found = []
    for row, view in enumerate(scene.views):
        files = [folder / view.name] if folder is not None else []
        if view.name in run.photos and photos is None:
            files.insert(0, run.photo_png(view.name))
        intrinsics = scene.intrinsics(view)
        number = run.photos[view.name].id if view.name in run.photos else row
        size = intrinsics.width, intrinsics.height
        pinhole = PinholeView(number, view.name, intrinsics.K, view.cam_from_world, *size)
        there = next((path for path in files if path.is_file()), None)
        found.append(ViewPhoto(pinhole, intrinsics, there, run.original_size(view.name)))
    missing = [photo.name for photo in found if photo.path is None]
    where = "nobody knows where they were" if folder is None else f"expected in {folder}"
    note = (
        f"{len(missing)} photos are not there ({where}; for example {missing[0]}): cameras are shown without them; "
        "give --photos DIR"
        if missing
        else ""
    )
    return tuple(found), (note,) if missing else ()


def _up_of(views: list[PinholeView], georeference: Georeference | None = None) -> Float64[np.ndarray, "3"]:
    """Find the up direction: as the georeference says, else as the photos were held, else z."""
    if georeference is not None:
        return np.asarray(georeference.similarity.rotation[2], np.float64)
    try:
        return up_of_photos(np.array([view.cam_from_world[:, :3] for view in views]).reshape(-1, 3, 3))
    except ValueError:
        return np.array([0.0, 0.0, 1.0])


def _without_cameras(path: Path, cloud_file: Path, mesh_file: Path | None, sample: int | None) -> ViewScene:
    """A folder with points or a mesh, but no cameras."""
    first = _of_file(cloud_file if cloud_file.is_file() else mesh_file or cloud_file, sample)
    mesh, notes = _mesh(mesh_file, first.offset)
    note = f"{path}: has no cameras (sparse/0 is missing): only points and mesh are shown"
    return replace(first, name=_name(path), mesh=mesh, notes=(note, *first.notes, *notes))


def _mesh(path: Path | None, offset: Float64[np.ndarray, "3"]) -> tuple[VertexMesh | None, tuple[str, ...]]:
    if path is None:
        return None, ()
    mesh, notes = read_view_mesh(path, in_model=True)
    return mesh.near(offset), notes


def _mesh_file(root: Path) -> Path | None:
    return next((root / "mesh" / name for name in _MESHES if (root / "mesh" / name).is_file()), None)


def _name(root: Path) -> str:
    return root.resolve().name or str(root)


def _of_file(path: Path, first: int | None = None) -> ViewScene:
    """Open a point cloud or a mesh by itself: .ply, .obj or .glb.

    Args:
        first: of a cloud that is far larger only a sample of about so many points, the whole being left unread.

    Raises:
        ReconError: the file cannot be read, or nothing is in it.
    """
    if is_mesh_file(path):
        mesh, notes = read_view_mesh(path)
        offset = offset_to_origin(mesh.vertices[:: max(1, len(mesh.vertices) // 10_000)])
        up = np.array([0.0, 1.0, 0.0] if path.suffix.lower() == ".glb" else [0.0, 0.0, 1.0])  # glTF says so
        return ViewScene(path.name, mesh=mesh.near(offset), offset=offset, up=up, notes=notes)
    count = ply_elements(path).get("vertex", 0)
    if not count:
        raise ReconError(f"{path}: holds no points")
    coarse = _columns(read_ply_vertices(path, max(1, count // 10_000)), ("x", "y", "z"), np.float64)
    coarse = coarse[np.isfinite(coarse).all(axis=1)]
    offset = offset_to_origin(coarse) if len(coarse) else np.zeros(3)
    cloud, notes, unread = read_view_cloud(path, offset, first)
    return ViewScene(path.name, dense=cloud, offset=offset, notes=notes, unread=unread)


def is_mesh_file(path: Path) -> bool:
    """Tell a file that holds faces from one of points only.

    Raises:
        ReconError: a PLY that cannot be read.
    """
    return path.suffix.lower() != ".ply" or ply_elements(path).get("face", 0) > 0


def read_view_cloud(
    path: Path, offset: Float64[np.ndarray, "3"], first: int | None = None
) -> tuple[PointCloud, tuple[str, ...], UnreadCloud | None]:
    """Read the points of a PLY, near the origin; also notes, and what was left unread.

    Args:
        first: of a cloud that is far larger only a sample of about so many points.

    Raises:
        ReconError: the file cannot be read, or none of its points has coordinates.
    """
    count = ply_elements(path).get("vertex", 0)
    if first is None or count < _FAR_LARGER * first:
        return *_cloud_of_rows(path, read_ply_vertices(path), offset), None
    sample = read_ply_vertices(path, count // first)
    known = np.isfinite(_columns(sample, ("x", "y", "z"), np.float64)).all(axis=1)
    if not known.any():
        return *_cloud_of_rows(path, read_ply_vertices(path), offset), None
    cloud, notes = _cloud_of_rows(path, sample[known], offset)
    return cloud, notes, UnreadCloud(count, lambda: _cloud_of_rows(path, read_ply_vertices(path), offset))


def _cloud_of_rows(
    path: Path, rows: Any, offset: Float64[np.ndarray, "3"]
) -> tuple[PointCloud, tuple[str, ...]]:
    """Make the cloud of a PLY's vertices (a structured array); points whose coordinates are no numbers are dropped."""
    names = set(rows.dtype.names or ())
    notes: list[str] = []
    finite = np.isfinite(rows["x"]) & np.isfinite(rows["y"]) & np.isfinite(rows["z"])
    if not finite.all():
        notes.append(
            f"{path.name}: {int((~finite).sum())} of {len(rows)} points have no coordinates: dropped"
        )
        rows = rows[finite]
    if not len(rows):
        raise ReconError(f"{path}: none of its points has coordinates")
    moved = offset.any()
    xyz = np.empty((len(rows), 3), np.float32)
    for axis, name in enumerate("xyz"):
        xyz[:, axis] = rows[name].astype(np.float64) - offset[axis] if moved else rows[name]

    def one(name: str, kind: Any) -> Any:
        return np.ascontiguousarray(rows[name]).astype(kind) if name in names else None

    rgb = _colors(rows, names)
    if rgb is None:
        notes.append(f"{path.name}: has no colours: drawn by height")
    normals = _columns(rows, ("nx", "ny", "nz"), np.float32) if {"nx", "ny", "nz"} <= names else None
    confidence = one("confidence", np.float32)
    if normals is not None:
        normals[~np.isfinite(normals).all(axis=1)] = 0.0
    if confidence is not None:
        confidence = np.nan_to_num(confidence, copy=False)
    cloud = PointCloud(
        xyz,
        normals if normals is not None and normals.any() else None,
        rgb,
        one("view_count", np.uint16),
        one("reference_view", np.int32),
        confidence,
    )
    return cloud, tuple(notes)


def read_view_mesh(
    path: Path, in_model: bool = False, texels: int | None = None
) -> tuple[VertexMesh, tuple[str, ...]]:
    """Read a mesh of a .ply, .obj or .glb file, its vertices in double precision, and notes.

    Args:
        in_model: a GLB that was turned upright comes in the frame of the model that it was made of.
        texels: as of ``read_mesh_file``.

    Raises:
        ReconError: the file cannot be read, or holds no triangles.
    """
    suffix = path.suffix.lower()
    if suffix not in MESH_SUFFIXES:
        raise ReconError(f"{path}: a mesh is one of {', '.join(MESH_SUFFIXES)}")
    if not path.is_file():
        raise ReconError(f"{path}: there is no such file")
    mesh = _read_ply_mesh(path) if suffix == ".ply" else read_mesh_file(path, texels)
    if not len(mesh.faces):
        raise ReconError(f"{path}: holds no triangles")
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        raise ReconError(f"{path}: has a triangle whose vertices are not in the file")
    vertices = mesh.vertices
    if in_model and suffix == ".glb":
        with reading(path):
            back = model_from_scene(read_glb(path.read_bytes())[0])
        vertices = vertices @ back[:3, :3].T + back[:3, 3]
    finite = np.isfinite(vertices).all(axis=1)
    if finite.all():
        return replace(mesh, vertices=vertices), ()
    faces = mesh.faces[finite[mesh.faces].all(axis=1)]
    vertices = np.where(finite[:, None], vertices, vertices[finite].mean(axis=0) if finite.any() else 0.0)
    lost = f"{path.name}: {int((~finite).sum())} of {len(vertices)} vertices have no coordinates: dropped"
    return replace(mesh, vertices=vertices, faces=faces), (lost,)


def _read_ply_mesh(path: Path) -> VertexMesh:
    mesh = read_mesh(path)
    rgb = None
    if mesh.has_vertex_colors():
        rgb = np.rint(np.clip(np.asarray(mesh.vertex_colors), 0.0, 1.0) * 255).astype(np.uint8)
    return VertexMesh(np.array(mesh.vertices, np.float64), np.array(mesh.triangles, np.int32), rgb)


def _columns(rows: Any, names: tuple[str, ...], kind: Any) -> Any:
    return np.stack([np.asarray(rows[name], kind) for name in names], axis=-1)


def _colors(rows: Any, names: set[str]) -> UInt8[np.ndarray, "n 3"] | None:
    """Colours as bytes: files have them as bytes, as 16 bits, or as fractions."""
    for prefix in ("", "diffuse_"):
        columns = tuple(prefix + name for name in ("red", "green", "blue"))
        if set(columns) <= names:
            kind = rows.dtype[columns[0]]
            if kind.kind == "f":
                return np.rint(
                    np.clip(np.nan_to_num(_columns(rows, columns, np.float32)), 0, 1) * 255
                ).astype(np.uint8)
            if kind.itemsize == 2:
                return (_columns(rows, columns, np.uint16) >> 8).astype(np.uint8)
            return np.asarray(_columns(rows, columns, np.uint8))
    return None
