"""What a run left on disk, read without running anything: a workspace of recon, or a folder of another tool.

The layout of a workspace is the one that the stages write (docs/architecture.md); a folder with nothing but a COLMAP
model, a COLMAP database, a cloud or a mesh is a run too.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, UInt8

from recon.core.cameras import Intrinsics
from recon.core.mesh import Mesh, PointCloud, mesh_from_open3d
from recon.errors import ReconError
from recon.matching.types import SparseMatch

FLOW_STEP = 1 / 32
"""Pixels per unit of the 16-bit flow in a workspace."""

_HALF_PIXEL = 0.5
"""COLMAP's origin is the corner of the top-left pixel, recon's its centre."""
_PAIR_BASE = 2147483647
"""COLMAP numbers the pair of images i < j as i · (2^31 - 1) + j."""

_MODEL_FILES = ("images.bin", "images.txt")
_CLOUDS = ("dense/points.ply", "fused.ply", "dense/fused.ply", "dense/0/fused.ply", "scene_dense.ply")
_MESHES = (
    "mesh/mesh.ply", "mesh.ply", "meshed-poisson.ply", "dense/meshed-poisson.ply", "meshed-delaunay.ply",
    "scene_dense_mesh_refine.ply", "scene_dense_mesh.ply", "mesh/mesh.obj", "mesh.obj",
)  # fmt: skip

Pair = tuple[str, str]


@dataclass(frozen=True)
class RunPhoto:
    """A photo as the run used it.

    Attributes:
        name: path below the photo folder.
        number: the run's own id, which its file names use.
        width, height: working size: matches and observations are in these pixels.
    """

    name: str
    number: int
    width: int
    height: int


@dataclass(frozen=True)
class RunCamera:
    """A camera as the run found it.

    Attributes:
        intrinsics: recon's pixel convention, distortion included, at the size that the run says.
        cam_from_world: 3x4.
    """

    intrinsics: Intrinsics
    cam_from_world: Float64[np.ndarray, "3 4"]

    def project(
        self, xyz: Float[np.ndarray, "n 3"]
    ) -> tuple[Float64[np.ndarray, "n 2"], Float64[np.ndarray, " n"]]:
        """Pixels (NaN behind the camera) and z-depth of world points."""
        from recon.core.colmap import camera_from_intrinsics, points_from_colmap

        local = np.asarray(xyz, np.float64) @ self.cam_from_world[:, :3].T + self.cam_from_world[:, 3]
        z = local[:, 2]
        if self.intrinsics.is_pinhole:
            K = self.intrinsics.K
            safe = np.where(z > 1e-12, z, np.nan)
            pixels = local[:, :2] / safe[:, None] * [K[0, 0], K[1, 1]] + K[:2, 2]
            return pixels, z
        camera = camera_from_intrinsics(self.intrinsics)
        pixels = np.asarray(camera.img_from_cam(np.ascontiguousarray(local)), np.float64)
        return np.where((z > 1e-12)[:, None], points_from_colmap(pixels), np.nan), z


@dataclass(frozen=True)
class SparseModel:
    """Triangulated tracks of a run.

    Attributes:
        xyz: (n, 3) points.
        length: number of observations of each point.
        error: mean reprojection error of each point in pixels.
        observations: number of all observations.
    """

    xyz: Float64[np.ndarray, "n 3"]
    length: Float64[np.ndarray, " n"]
    error: Float64[np.ndarray, " n"]
    observations: int


def find_model(folder: Path) -> Path | None:
    """Find the COLMAP model of a folder: ``sparse/0``, ``sparse``, the folder itself, or ``dense/sparse``."""
    for below in ("sparse/0", "sparse", ".", "dense/sparse", "dense/0/sparse"):
        candidate = Path(folder) / below
        if any((candidate / name).is_file() for name in _MODEL_FILES):
            return candidate
    return None


def find_cloud(folder: Path) -> Path | None:
    """Find the dense cloud of a folder under the names that recon, COLMAP and OpenMVS give it."""
    return next((Path(folder) / name for name in _CLOUDS if (Path(folder) / name).is_file()), None)


def find_mesh(folder: Path) -> Path | None:
    """Find the mesh of a folder under the names that recon, COLMAP and OpenMVS give it."""
    return next((Path(folder) / name for name in _MESHES if (Path(folder) / name).is_file()), None)


class RunFiles:
    """A run on disk. Everything is read when it is asked for; what is not there is None or empty."""

    def __init__(
        self,
        root: Path,
        *,
        model: Path | None = None,
        cloud: Path | None = None,
        mesh: Path | None = None,
        database: Path | None = None,
        scale: float = 1.0,
    ) -> None:
        """Open a run.

        Args:
            root: its folder.
            model: folder of the COLMAP model, where it lies elsewhere.
            cloud, mesh: files of the surface, where they lie elsewhere; with either, only that surface is looked at.
            database: a COLMAP database to take the matches from, whatever else is in the folder.
            scale: coordinates of cameras and surfaces are multiplied by this.

        Raises:
            ReconError: there is no such folder.
        """
        self.root = Path(root)
        if not self.root.is_dir():
            raise ReconError(f"{self.root}: no such folder; name the folder of a run")
        self._model, self.scale = model, scale
        only = cloud is not None or mesh is not None
        self.cloud_path = cloud if only else find_cloud(self.root)
        self.mesh_path = mesh if only else find_mesh(self.root)
        self._only = only
        self._database = database

    @cached_property
    def photos(self) -> dict[str, RunPhoto]:
        """The photos that the run used, by name; empty without ``photos.json``."""
        if self._database is not None:
            return {}
        data = self._json("photos.json") or {"photos": []}
        return {
            p["name"]: RunPhoto(p["name"], int(p["id"]), int(p["width"]), int(p["height"]))
            for p in data["photos"]
        }

    @cached_property
    def given(self) -> frozenset[str]:
        """Names of all photos that the run was given, those that it could not use included."""
        if self._database is not None:
            return frozenset()
        data = self._json("photos.json") or {"photos": []}
        return frozenset(p["name"] for p in [*data["photos"], *data.get("left_out", [])])

    def original_size(self, name: str) -> tuple[int, int] | None:
        """Width and height of a photo's file, orientation applied; None where unknown."""
        for entry in (self._json("photos.json") or {"photos": []})["photos"]:
            if entry["name"] == name:
                return int(entry["original_width"]), int(entry["original_height"])
        return self.database_sizes.get(name)

    @cached_property
    def database_sizes(self) -> dict[str, tuple[int, int]]:
        """Width and height of the images of the COLMAP database, by name."""
        return photo_sizes_from_database(self._database or self.root)

    def flow_shape(self, name: str) -> tuple[int, int] | None:
        """Rows and columns of the flow from a photo; None where no pair has it."""
        import zarr

        for pair in self.pairs:
            if name in pair:
                i, j = (self.photos[one].number for one in pair)
                path = (
                    self.root
                    / "flows.zarr"
                    / f"{i}_{j}"
                    / ("consistent_a" if pair[0] == name else "consistent_b")
                )
                if path.is_dir():
                    rows, columns = zarr.open_array(str(path), mode="r").shape
                    return int(rows), int(columns)
        return None

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """Pairs of photo names that were matched, in the order of their ids; empty without ``pairs.json``."""
        if self._database is not None:
            return ()
        return tuple((entry["a"], entry["b"]) for entry in self._json("pairs.json") or ())

    @cached_property
    def model_folder(self) -> Path | None:
        """The folder of the COLMAP model."""
        if self._model is not None:
            found = find_model(self._model)
            if found is None:
                raise ReconError(f"{self._model}: no COLMAP model (images.bin or images.txt) is here")
            return found
        return None if self._only else find_model(self.root)

    @cached_property
    def model(self) -> Any:
        """The COLMAP model, None where there is none.

        Raises:
            ReconError: it cannot be read.
        """
        if self.model_folder is None:
            return None
        from recon.core.colmap import pycolmap

        try:
            return pycolmap.Reconstruction(str(self.model_folder))
        except (ValueError, RuntimeError) as error:
            raise ReconError(f"{self.model_folder}: the COLMAP model cannot be read: {error}") from error

    @cached_property
    def cameras(self) -> dict[str, RunCamera]:
        """The registered cameras by photo name."""
        if self.model is None:
            return {}
        from recon.core.colmap import intrinsics_from_camera

        found = {}
        for image in self.model.images.values():
            if image.has_pose:
                pose = np.array(image.cam_from_world().matrix(), np.float64)
                camera = self.model.cameras[image.camera_id]
                found[str(image.name)] = RunCamera(intrinsics_from_camera(camera), pose)
        return dict(sorted(found.items()))

    @cached_property
    def poses(self) -> dict[str, Float64[np.ndarray, "3 4"]]:
        """``cam_from_world`` of the registered cameras by photo name."""
        return {name: camera.cam_from_world for name, camera in self.cameras.items()}

    def sparse(self) -> SparseModel | None:
        """The triangulated tracks of the model; None without points."""
        if self.model is None or not len(self.model.points3D):
            return None
        self.model.update_point_3d_errors()
        points = [self.model.points3D[key] for key in sorted(self.model.points3D)]
        length = np.array([p.track.length() for p in points], np.float64)
        return SparseModel(
            np.array([p.xyz for p in points], np.float64),
            length,
            np.array([p.error for p in points], np.float64),
            int(length.sum()),
        )

    def cloud(self) -> PointCloud | None:
        """The dense points; kept once they are read.

        Raises:
            ReconError: the file cannot be read, or holds no finite point.
        """
        return self._cloud

    @cached_property
    def _cloud(self) -> PointCloud | None:
        if self.cloud_path is None:
            return None
        from recon.io.surfaces import read_points_ply

        try:
            found = read_points_ply(self.cloud_path)
        except (OSError, ValueError) as error:
            raise ReconError(f"{self.cloud_path}: cannot be read ({error})") from error
        if not np.isfinite(found.xyz).all(axis=1).any():
            raise ReconError(
                f"{self.cloud_path}: holds no points that could be judged ({len(found)} in the file); make it anew"
            )
        return replace(found, xyz=found.xyz * np.float32(self.scale)) if self.scale != 1.0 else found

    def mesh(self) -> Mesh | None:
        """The mesh; kept once it is read.

        Raises:
            ReconError: the file cannot be read, or holds no faces.
        """
        return self._mesh

    @cached_property
    def _mesh(self) -> Mesh | None:
        if self.mesh_path is None:
            return None
        from recon.io.surfaces import read_mesh

        if not self.mesh_path.is_file():
            raise ReconError(f"{self.mesh_path}: no such file")
        try:
            found = mesh_from_open3d(read_mesh(self.mesh_path))
        except ReconError as error:
            raise ReconError(f"{error}; a file of points alone is judged with --what points") from error
        return (
            replace(found, vertices=found.vertices * np.float32(self.scale)) if self.scale != 1.0 else found
        )

    def rgb(self, name: str) -> UInt8[np.ndarray, "h w 3"] | None:
        """A photo at working size, from the workspace."""
        from recon.photos.reading import read_png

        path = self.root / "photos" / (name.replace("%", "%25").replace("/", "%2F") + ".png")
        return read_png(path) if path.is_file() else None

    def two_view_poses(self) -> dict[Pair, Float64[np.ndarray, "3 4"]] | None:
        """``b_from_a`` of every pair whose relative pose was found from its own matches; None without the file."""
        path = self.root / "two_view.npz"
        if not path.is_file():
            return None
        names = {photo.number: name for name, photo in self.photos.items()}
        found = {}
        with np.load(path) as data:
            for key in data.files:
                if key.endswith("_pose"):
                    i, j = (int(part) for part in key.split("_")[:2])
                    if i in names and j in names:
                        found[names[i], names[j]] = np.asarray(data[key], np.float64)
        return found

    def matches(self, limit: int = 20_000, seed: int = 0) -> Iterator[tuple[Pair, SparseMatch, int]]:
        """The matches of every pair, in pixels of the working size, and how many there are.

        A dense matcher's matches are the consistent pixels of A and where their flow points; of more than ``limit``
        a seeded sample is handed over. A pair of a workspace for which the matcher left nothing has no matches. Without
        a workspace's own files the verified matches of a COLMAP database (the raw ones where nothing was verified) are
        read.

        Raises:
            ReconError: a file is damaged.
        """
        if not self.pairs:
            yield from matches_from_database(self._database or self.root, limit, seed)
            return
        for pair in self.pairs:
            found = self.pair_matches(pair, limit, seed)
            yield (pair, *found) if found is not None else (pair, _no_matches(), 0)

    @cached_property
    def is_dense(self) -> bool:
        """True for the workspace of a dense matcher."""
        matching = self._json("matching.json")
        if matching is not None:
            return bool(matching["kind"] == "dense")
        return (self.root / "flows.zarr").is_dir() and not (self.root / "matches").is_dir()

    def pair_matches(
        self, pair: Pair, limit: int | None = 20_000, seed: int = 0
    ) -> tuple[SparseMatch, int] | None:
        """The matches of one pair of the workspace, and how many there are; None where there are none on disk."""
        a, b = (self.photos[name] for name in pair)
        if self.is_dense:
            folder = self.root / "flows.zarr" / f"{a.number}_{b.number}"
            return _dense_matches(folder, a, b, limit, seed) if folder.is_dir() else None
        path = self.root / "matches" / f"{a.number}_{b.number}.npz"
        if not path.is_file():
            return None
        try:
            with np.load(path) as data:
                match = SparseMatch(data["xy_a"], data["xy_b"], data["score"])
        except (OSError, ValueError, KeyError) as error:
            raise ReconError(
                f"{path}: cannot be read ({error}); run again with --restart-from match"
            ) from error
        count = len(match.xy_a)
        if limit is not None and count > limit:
            rows = np.sort(np.random.default_rng(seed).choice(count, limit, replace=False))
            match = SparseMatch(match.xy_a[rows], match.xy_b[rows], match.score[rows])
        return match, count

    def flow(self, pair: Pair) -> tuple[Float32[np.ndarray, "h w 2"], Bool[np.ndarray, "h w"]] | None:
        """The flow from the first to the second photo of a pair at the size of matching, and where it is consistent;
        None where there is none."""
        import zarr

        if not self.is_dense or any(name not in self.photos for name in pair):
            return None
        i, j = (self.photos[name].number for name in pair)
        for folder, side in ((f"{i}_{j}", "a"), (f"{j}_{i}", "b")):
            path = self.root / "flows.zarr" / folder
            if path.is_dir():
                steps = zarr.open_array(str(path / f"flow_{side}"), mode="r")[...]
                consistent = zarr.open_array(str(path / f"consistent_{side}"), mode="r")[...]
                return steps.astype(np.float32) * np.float32(FLOW_STEP), consistent.astype(bool)
        return None

    def depth(self, name: str) -> Float32[np.ndarray, "h w"] | None:
        """The depth map of a photo, in the run's units; 0 where unknown."""
        photo = self.photos.get(name)
        path = self.root / "dense" / "depth" / f"{photo.number}.npz" if photo else None
        if path is not None and path.is_file():
            with np.load(path) as data:
                return np.asarray(data["depth"], np.float32)
        for folder in ("stereo/depth_maps", "dense/stereo/depth_maps", "dense/0/stereo/depth_maps", "."):
            for suffix in (".geometric.bin", ".photometric.bin", ".npy", ".npz", ".pfm"):
                candidate = self.root / folder / f"{name}{suffix}"
                if candidate.is_file():
                    from recon.io.depth_maps import read_depth_map

                    return read_depth_map(candidate)
        return None

    def _json(self, name: str) -> Any:
        path = self.root / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ReconError(
                f"{path}: cannot be read ({error}); make it anew with the same command"
            ) from error


def _no_matches() -> SparseMatch:
    none = np.zeros((0, 2), np.float32)
    return SparseMatch(none, none, np.zeros(0, np.float32))


def _dense_matches(
    folder: Path, a: RunPhoto, b: RunPhoto, limit: int | None, seed: int
) -> tuple[SparseMatch, int]:
    import zarr

    def read(name: str) -> Any:
        return zarr.open_array(str(folder / name), mode="r")[...]

    consistent: Bool[np.ndarray, "h w"] = read("consistent_a").astype(bool)
    height, width = consistent.shape
    target_height, target_width = zarr.open_array(str(folder / "consistent_b"), mode="r").shape
    index = np.flatnonzero(consistent)
    count = len(index)
    if limit is not None and count > limit:
        index = np.sort(np.random.default_rng(seed).choice(index, limit, replace=False))
    flow = read("flow_a").reshape(-1, 2)[index].astype(np.float64) * FLOW_STEP
    score = read("confidence_a").reshape(-1)[index].astype(np.float32) / np.float32(255)
    xy = np.stack([index % width, index // width], axis=1).astype(np.float64)
    there = xy + flow
    size_a = np.array([a.width / width, a.height / height])
    size_b = np.array([b.width / target_width, b.height / target_height])
    moved = [(xy + 0.5) * size_a - 0.5, (there + 0.5) * size_b - 0.5]
    return SparseMatch(moved[0].astype(np.float32), moved[1].astype(np.float32), score), count


def matches_from_database(
    path: Path, limit: int = 20_000, seed: int = 0
) -> Iterator[tuple[Pair, SparseMatch, int]]:
    """Read the matches of a COLMAP database: the verified ones, or the raw ones where nothing was verified.

    Args:
        path: ``database.db``, or the folder that holds it.
        limit: a seeded sample is taken of more.
        seed: of the sample.

    Raises:
        ReconError: it cannot be read.
    """
    file = Path(path) / "database.db" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        return
    # Read by SQL and not by pycolmap, which opens for writing and brings old files to its own version.
    database = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)
    try:
        names = {
            int(number): str(name) for number, name in database.execute("SELECT image_id, name FROM images")
        }
        keypoints = {
            int(number): np.frombuffer(data or b"", "<f4").reshape(rows, columns)[:, :2]
            - np.float32(_HALF_PIXEL)
            for number, rows, columns, data in database.execute(
                "SELECT image_id, rows, cols, data FROM keypoints"
            )
        }
        table = "two_view_geometries"
        if not database.execute(f"SELECT COUNT(*) FROM {table} WHERE rows > 0").fetchone()[0]:
            table = "matches"
        query = f"SELECT pair_id, rows, data FROM {table} WHERE rows > 0 ORDER BY pair_id"
        for number, count, data in database.execute(query):
            i, j = divmod(int(number), _PAIR_BASE)
            rows = np.frombuffer(data, "<u4").reshape(count, 2)
            if i not in keypoints or j not in keypoints:
                continue
            if count > limit:
                rows = rows[np.sort(np.random.default_rng(seed).choice(count, limit, replace=False))]
            ends = [(names[i], keypoints[i][rows[:, 0]]), (names[j], keypoints[j][rows[:, 1]])]
            (name_a, xy_a), (name_b, xy_b) = sorted(ends, key=lambda end: end[0])
            yield (name_a, name_b), SparseMatch(xy_a, xy_b, np.ones(len(rows), np.float32)), int(count)
    except (sqlite3.Error, ValueError, IndexError, KeyError) as error:
        raise ReconError(f"{file}: not a COLMAP database that can be read ({error})") from error
    finally:
        database.close()


def photo_sizes_from_database(path: Path) -> dict[str, tuple[int, int]]:
    """Read width and height of every image of a COLMAP database, by name.

    Raises:
        ReconError: it cannot be read.
    """
    file = Path(path) / "database.db" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        return {}
    database = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)
    try:
        query = "SELECT name, width, height FROM images JOIN cameras ON images.camera_id = cameras.camera_id"
        return {str(name): (int(width), int(height)) for name, width, height in database.execute(query)}
    except sqlite3.Error as error:
        raise ReconError(f"{file}: not a COLMAP database that can be read ({error})") from error
    finally:
        database.close()
