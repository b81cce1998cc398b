"""A scene to look at: photos with their poses, points and a mesh, near the origin of single precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Int32, UInt8, UInt16

from recon.core.cameras import Intrinsics, PinholeView
from recon.core.frames import offset_to_origin, up_of_photos
from recon.core.resize import resize_rgb, working_size
from recon.core.undistort import undistort_photo
from recon.errors import ReconError
from recon.exports.georeference import Georeference
from recon.exports.scene import Scene
from recon.io.glb import model_from_scene, read_glb, srgb_of_linear
from recon.io.surfaces import ply_elements, read_mesh, read_ply_vertices
from recon.photos.reading import load_photo, read_png

CLOUD_SUFFIXES = (".ply",)
MESH_SUFFIXES = (".ply", ".obj", ".glb")

# A cloud is sampled first if it has so many times the points of the sample.
_FAR_LARGER = 4


@dataclass(frozen=True)
class ViewPhoto:
    """A photo with its pose.

    Attributes:
        view: the undistorted pinhole camera; ``photo_id`` is that of the run (the position in the model where there
            is no run), which dense points name as their reference view.
        intrinsics: of the photo as it is, distortion included.
        path: of the pixels, at the size of the camera or larger; None when the photo is not there.
    """

    view: PinholeView
    intrinsics: Intrinsics
    path: Path | None = None

    @property
    def name(self) -> str:
        """Of the photo's file, relative to the photo folder."""
        return self.view.name

    def undistorted(self, max_size: int | None = None) -> tuple[UInt8[np.ndarray, "h w 3"], PinholeView]:
        """Pixels of the undistorted photo, and the camera at that size.

        Args:
            max_size: of the longer side; that of the camera by default, and never more.

        Raises:
            ReconError: the photo is not there or cannot be read.
        """
        view = self.view
        width, height = working_size(view.width, view.height, max_size or max(view.width, view.height))
        rgb = resize_rgb(self.pixels(), width, height)
        rgb, _ = undistort_photo(rgb, None, self.intrinsics.resized(width, height), cv2.INTER_LINEAR)
        return rgb, view.resized(width, height)

    def pixels(self) -> UInt8[np.ndarray, "h w 3"]:
        """Pixels of the file: upright, distortion left in, at the size of the file.

        Raises:
            ReconError: the photo is not there or cannot be read.
        """
        if self.path is None:
            raise ReconError(f"{self.name}: the photo is not there (any more); give --photos DIR")
        return read_png(self.path) if self.path.suffix == ".png" else load_photo(self.path).rgb


@dataclass(frozen=True)
class ViewCloud:
    """Points, near the origin; None where the file does not say.

    Attributes:
        xyz: (n, 3), the scene's offset taken away; finite.
        rgb: (n, 3). normals: (n, 3) unit vectors, zero where unknown.
        view_count: number of photos that agree on a point. confidence: 0…1.
        reference_view: ``photo_id`` of the photo that made a point.
    """

    xyz: Float32[np.ndarray, "n 3"]
    rgb: UInt8[np.ndarray, "n 3"] | None = None
    normals: Float32[np.ndarray, "n 3"] | None = None
    view_count: UInt16[np.ndarray, " n"] | None = None
    confidence: Float32[np.ndarray, " n"] | None = None
    reference_view: Int32[np.ndarray, " n"] | None = None

    def __len__(self) -> int:
        return len(self.xyz)

    def rows(self, which: Int[np.ndarray, " k"] | Bool[np.ndarray, " n"] | slice) -> ViewCloud:
        """Some of the points."""

        def some(values: Any) -> Any:
            return None if values is None else values[which]

        return ViewCloud(
            self.xyz[which],
            some(self.rgb),
            some(self.normals),
            some(self.view_count),
            some(self.confidence),
            some(self.reference_view),
        )


@dataclass(frozen=True)
class ViewMesh:
    """Triangles, near the origin; None where the file does not say.

    Attributes:
        vertices: (n, 3), the scene's offset taken away; finite.
        faces: (m, 3) vertex indices, counter-clockwise seen from outside.
        rgb: (n, 3) colours of the vertices.
        uv: (n, 2) texture coordinates of the vertices, v up; vertices are repeated where charts meet.
        texture: (h, w, 3), first row at v = 1.
    """

    vertices: Float32[np.ndarray, "n 3"]
    faces: Int32[np.ndarray, "m 3"]
    rgb: UInt8[np.ndarray, "n 3"] | None = None
    uv: Float32[np.ndarray, "n 2"] | None = None
    texture: UInt8[np.ndarray, "h w 3"] | None = None

    @property
    def textured(self) -> bool:
        """True where there is a texture to draw."""
        return self.uv is not None and self.texture is not None


@dataclass(frozen=True)
class UnreadCloud:
    """A dense cloud of which only a sample was read so far.

    Attributes:
        count: of all points in the file. read: reads them all; the cloud, and what there is to say of it.
    """

    count: int
    read: Callable[[], tuple[ViewCloud, tuple[str, ...]]]


@dataclass(frozen=True)
class ViewScene:
    """All that can be looked at of one run or file.

    Attributes:
        name: for people.
        photos: with a pose, in the order of the views of ``sparse``.
        sparse: cameras, keypoints and points with their tracks, the offset taken away; None without a model.
        dense: the dense cloud. mesh: the mesh, the textured one if there is one.
        offset: what was taken away from all coordinates, so that single precision holds them.
        up: unit vector, which way is up.
        georeference: how the model (offset given back) lies in a frame, if that is known.
        notes: what a person should know: points dropped, photos that are missing.
        unread: the whole dense cloud, where ``dense`` is a sample of it.
    """

    name: str
    photos: tuple[ViewPhoto, ...] = ()
    sparse: Scene | None = None
    dense: ViewCloud | None = None
    mesh: ViewMesh | None = None
    offset: Float64[np.ndarray, "3"] = field(default_factory=lambda: np.zeros(3))
    up: Float64[np.ndarray, "3"] = field(default_factory=lambda: np.array([0.0, 0.0, 1.0]))
    georeference: Georeference | None = None
    notes: tuple[str, ...] = ()
    unread: UnreadCloud | None = None

    @property
    def dense_count(self) -> int:
        """Points of the dense cloud, read or not."""
        if self.unread is not None:
            return self.unread.count
        return len(self.dense) if self.dense is not None else 0

    @property
    def views(self) -> list[PinholeView]:
        """The undistorted cameras of the photos."""
        return [photo.view for photo in self.photos]

    def points(self, limit: int = 100_000) -> Float32[np.ndarray, "n 3"]:
        """Points all over the scene: of the dense cloud, else of the mesh, else the sparse ones."""
        if self.dense is not None and len(self.dense):
            xyz: np.ndarray = self.dense.xyz
        elif self.mesh is not None:
            xyz = self.mesh.vertices
        elif self.sparse is not None:
            xyz = self.sparse.xyz
        else:
            xyz = np.zeros((0, 3))
        return np.asarray(xyz[:: max(1, -(-len(xyz) // limit))], np.float32)


def photos_of_scene(
    scene: Scene, file_of: Callable[[str], Path | None], id_of: Callable[[str], int | None]
) -> tuple[ViewPhoto, ...]:
    """The photos of a model.

    Args:
        scene: the model, the offset taken away.
        file_of: file with the pixels of a photo, None where it is missing.
        id_of: the run's number of a photo, None where there is no run.
    """
    photos = []
    for row, view in enumerate(scene.views):
        intrinsics = scene.intrinsics(view)
        number = id_of(view.name)
        pinhole = PinholeView(
            row if number is None else number,
            view.name,
            intrinsics.K,
            view.cam_from_world,
            intrinsics.width,
            intrinsics.height,
        )
        photos.append(ViewPhoto(pinhole, intrinsics, file_of(view.name)))
    return tuple(photos)


def scene_up(views: list[PinholeView], georeference: Georeference | None = None) -> Float64[np.ndarray, "3"]:
    """Find the up direction: as the georeference says, else as the photos were held, else z."""
    if georeference is not None:
        return np.asarray(georeference.similarity.rotation[2], np.float64)
    try:
        return up_of_photos(np.array([view.cam_from_world[:, :3] for view in views]).reshape(-1, 3, 3))
    except ValueError:
        return np.array([0.0, 0.0, 1.0])


def file_scene(path: Path, first: int | None = None) -> ViewScene:
    """A point cloud or a mesh by itself: .ply, .obj or .glb.

    Args:
        first: of a cloud that is far larger only a sample of about so many points, the whole being left unread.

    Raises:
        ReconError: the file cannot be read, or nothing is in it.
    """
    if is_mesh_file(path):
        vertices, mesh, notes = read_view_mesh(path)
        offset = offset_to_origin(vertices[:: max(1, len(vertices) // 10_000)])
        up = np.array([0.0, 1.0, 0.0] if path.suffix.lower() == ".glb" else [0.0, 0.0, 1.0])  # glTF says so
        return ViewScene(path.name, mesh=mesh(offset), offset=offset, up=up, notes=notes)
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
) -> tuple[ViewCloud, tuple[str, ...], UnreadCloud | None]:
    """The points of a PLY near the origin, what there is to say of them, and what was left unread.

    Args:
        first: of a cloud that is far larger only a sample of about so many points.

    Raises:
        ReconError: the file cannot be read, or none of its points has coordinates.
    """
    count = ply_elements(path).get("vertex", 0)
    if first is None or count < _FAR_LARGER * first:
        return *cloud_of_rows(path, read_ply_vertices(path), offset), None
    sample = read_ply_vertices(path, count // first)
    known = np.isfinite(_columns(sample, ("x", "y", "z"), np.float64)).all(axis=1)
    if not known.any():
        return *cloud_of_rows(path, read_ply_vertices(path), offset), None
    cloud, notes = cloud_of_rows(path, sample[known], offset)
    return cloud, notes, UnreadCloud(count, lambda: cloud_of_rows(path, read_ply_vertices(path), offset))


def cloud_of_rows(
    path: Path, rows: Any, offset: Float64[np.ndarray, "3"]
) -> tuple[ViewCloud, tuple[str, ...]]:
    """The cloud of a PLY's vertices (a structured array); points whose coordinates are no numbers are dropped."""
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
    cloud = ViewCloud(
        xyz,
        rgb,
        normals if normals is not None and normals.any() else None,
        one("view_count", np.uint16),
        confidence,
        one("reference_view", np.int32),
    )
    return cloud, tuple(notes)


def read_view_mesh(
    path: Path, in_model: bool = False
) -> tuple[Float64[np.ndarray, "n 3"], Callable[[Float64[np.ndarray, "3"]], ViewMesh], tuple[str, ...]]:
    """A mesh of a .ply, .obj or .glb file.

    Args:
        in_model: a GLB that was turned upright comes in the frame of the model that it was made of.

    Returns:
        Its vertices in double precision, the mesh as a function of the offset to take away, and notes.

    Raises:
        ReconError: the file cannot be read, or holds no triangles.
    """
    suffix = path.suffix.lower()
    if suffix not in MESH_SUFFIXES:
        raise ReconError(f"{path}: a mesh is one of {', '.join(MESH_SUFFIXES)}")
    if not path.is_file():
        raise ReconError(f"{path}: there is no such file")
    vertices, made = _read_ply_mesh(path) if suffix == ".ply" else _read_with_trimesh(path)
    if not len(made.faces):
        raise ReconError(f"{path}: holds no triangles")
    if in_model and suffix == ".glb":
        back = model_from_scene(read_glb(path.read_bytes())[0])
        vertices = vertices @ back[:3, :3].T + back[:3, 3]
    notes: tuple[str, ...] = ()
    finite = np.isfinite(vertices).all(axis=1)
    if not finite.all():
        notes = (
            f"{path.name}: {int((~finite).sum())} of {len(vertices)} vertices have no coordinates: dropped",
        )
        made = replace(made, faces=made.faces[finite[made.faces].all(axis=1)])
        vertices = np.where(finite[:, None], vertices, vertices[finite].mean(axis=0) if finite.any() else 0.0)

    def mesh(offset: Float64[np.ndarray, "3"]) -> ViewMesh:
        return replace(made, vertices=(vertices - offset).astype(np.float32))

    return vertices, mesh, notes


def _read_ply_mesh(path: Path) -> tuple[Float64[np.ndarray, "n 3"], ViewMesh]:
    mesh = read_mesh(path)
    vertices = np.asarray(mesh.vertices, np.float64)
    rgb = None
    if mesh.has_vertex_colors():
        rgb = np.rint(np.clip(np.asarray(mesh.vertex_colors), 0.0, 1.0) * 255).astype(np.uint8)
    faces = np.array(mesh.triangles, np.int32)
    return vertices, ViewMesh(np.zeros((0, 3), np.float32), faces, rgb)


def _read_with_trimesh(path: Path) -> tuple[Float64[np.ndarray, "n 3"], ViewMesh]:
    import trimesh

    try:
        loaded = trimesh.load_scene(path, process=False).to_mesh()
    except Exception as error:  # whatever a damaged file does to the parser
        raise ReconError(f"{path}: the mesh cannot be read ({type(error).__name__}: {error})") from error
    visual = loaded.visual
    rgb = uv = texture = None
    if isinstance(visual, trimesh.visual.TextureVisuals):
        material = visual.material
        image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
        if visual.uv is not None and image is not None:
            uv = np.asarray(visual.uv, np.float32)
            texture = np.asarray(image.convert("RGB"), np.uint8)
        colors = visual.vertex_attributes.get("color")
        visual = None if colors is None else trimesh.visual.ColorVisuals(vertex_colors=colors)
    if visual is not None and visual.defined:
        rgb = np.array(visual.vertex_colors[:, :3], np.uint8)
        if path.suffix.lower() == ".glb":
            rgb = srgb_of_linear(rgb / np.float32(255))
    faces = np.asarray(loaded.faces, np.int32)
    return (
        np.asarray(loaded.vertices, np.float64),
        ViewMesh(np.zeros((0, 3), np.float32), faces, rgb, uv, texture),
    )


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
