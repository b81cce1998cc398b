"""The one door to a run: a workspace of recon, or any folder with a COLMAP model, a database, a cloud or a mesh.

Stages, exports, evaluation, viewer and comparison read and write the artefacts of a run through ``RunFolder``. The
file names of a workspace are said in this room and nowhere else (docs/architecture.md lists them).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import networkx as nx
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Int64, UInt8

from recon.core.cameras import Intrinsics, PinholeView
from recon.core.memory import Lazy
from recon.core.mesh import FusedCloud, Mesh, mesh_from_open3d
from recon.core.posed import Camera, registered_cameras
from recon.dense.types import DepthMap
from recon.errors import ReconError, reading
from recon.features.types import InterestPoints, MatchedPoints
from recon.graph.types import Tracks, TwoViewGeometry
from recon.io.files import AtomicFolder, file_sha256, parse_json, read_arrays
from recon.io.manifest import Manifest, read_manifest
from recon.matching.types import DenseMatch, SparseMatch
from recon.photos.reading import read_png
from recon.photos.types import LeftOut, Photo, PhotoSet
from recon.run.colmap_database import matches_from_database, photo_sizes_from_database
from recon.run.matches import (
    FLOW_STEP,
    FLOWS,
    MATCHES,
    MATCHING,
    DenseMatches,
    DirectedMatch,
    Matching,
    Pair,
    check_field,
    no_matches,
    read_dense_match,
    read_directed_match,
    read_sparse_match,
    read_zarr,
    sampled_dense_match,
    sampled_sparse_match,
)
from recon.run.photos import (
    PHOTO_SET,
    PHOTOS,
    Stored,
    checked,
    mask_file,
    photo_file,
    photo_set_from_json,
    photo_set_to_json,
)
from recon.run.state import check_unchanged

NamePair = tuple[str, str]

DATABASE = "database.db"
FIELDS = "fields.json"
GRAPH = "view_graph.graphml"
LOOKS = "sparse_looks.npz"
MAPPING = "mapping.json"
MODELS = "sparse"
MODEL_SOURCES = "sources.json"
MODEL_TRACKS = "tracks.npz"
PAIRS = "pairs.json"
POINTS = "features"
SPARSE_MATCHES = "sparse_matches.npz"
TRACKS = "tracks.npz"
TRACK_OPTIONS = "tracks.json"
TRACK_SOURCES = "track_sources.json"
TRUST = "trust.json"
TWO_VIEW = "two_view.npz"
VERIFICATION = "verification.json"
VOCABULARY = "vocabulary.npz"
CLOUD = "dense/points.ply"
DEPTH = "dense/depth"
DEPTH_SIZE = "size.json"
GEOREFERENCE = "georeference.json"
MAPS = "maps"
ADJUSTED = "adjusted"
PRECISION = "adjusted/precision.npz"
MARKS = "marks.csv"
PICTURES = "pictures"
REPORT = "report.html"
SUMMARY = "summary.json"

_MODEL_FILES = ("images.bin", "images.txt")
_CLOUDS = (CLOUD, "fused.ply", "dense/fused.ply", "dense/0/fused.ply", "scene_dense.ply")
_MESHES = (
    "mesh/mesh.ply", "mesh.ply", "meshed-poisson.ply", "dense/meshed-poisson.ply", "meshed-delaunay.ply",
    "scene_dense_mesh_refine.ply", "scene_dense_mesh.ply", "mesh/mesh.obj", "mesh.obj",
)  # fmt: skip


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


@dataclass(frozen=True)
class _PairEntry:
    """A pair of ``pairs.json``."""

    a: str
    b: str
    i: int
    j: int
    sparse_inliers: int


@dataclass(frozen=True)
class _Kind:
    """The part of ``matching.json`` that older runs have too."""

    kind: str


@dataclass(frozen=True)
class _Fields:
    """``fields.json``."""

    matcher: str
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class _Model:
    """A model of ``mapping.json``."""

    folder: str
    registered: list[str]
    points: int


@dataclass(frozen=True)
class _Mapping:
    """``mapping.json``."""

    models: tuple[_Model, ...]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class _DepthSize:
    """``size.json`` of the depth maps."""

    max_size: int


def _again(stage: str) -> str:
    """Advice for a damaged file that a stage wrote."""
    return f"run again with --restart-from {stage}"


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


class RunFolder:
    """A run on disk. Everything is read when it is asked for, and kept where it is small.

    Pairs are ascending photo ids, or pairs of photo names where the method says so (``named_``).
    """

    def __init__(
        self,
        root: Path,
        files: AtomicFolder | None = None,
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
            files: what writes; a stage hands its context over.
            model: folder of the COLMAP model, where it lies elsewhere.
            cloud, mesh: files of the surface, where they lie elsewhere; with either, only that surface is looked at.
            database: a COLMAP database to take the matches from, whatever else is in the folder.
            scale: coordinates of clouds and meshes are multiplied by this.

        Raises:
            ReconError: there is no such folder.
        """
        self.root = Path(root)
        if not self.root.is_dir():
            raise ReconError(f"{self.root}: no such folder; name the folder of a run")
        self.files = files or AtomicFolder(self.root)
        self._model, self.scale = model, scale
        self._only_surface = cloud is not None or mesh is not None
        self._cloud, self._mesh = cloud, mesh
        self._database = database
        self._file_keys: dict[Path, str] = {}
        self._checked: set[str] = set()

    @classmethod
    def of(cls, files: AtomicFolder) -> RunFolder:
        """The run whose folder a stage writes to."""
        return cls(files.root, files)

    def path(self, *parts: str) -> Path:
        """A path in the folder."""
        return self.root.joinpath(*parts)

    def json(self, name: str) -> Any:
        """The content of a JSON file of the run; None where there is none.

        Raises:
            ReconError: it is damaged.
        """
        path = self.root / name
        if not path.exists():
            return None
        self._check(name)
        with reading(path, "make it anew with the same command"):
            return parse_json(path.read_text(encoding="utf-8"))

    def _check(self, *names: str) -> None:
        """Refuse files that are not those that their stages wrote; each is looked at once."""
        new = set(names) - self._checked
        if new:
            check_unchanged(self.root, *sorted(new))
            self._checked |= new

    def _required(self, name: str, stage: str) -> Any:
        found = self.json(name)
        if found is None:
            raise ReconError(f"{self.root / name}: is gone; {_again(stage)}")
        return found

    def _stored(self, name: str, stage: str, kind: type[Stored]) -> Stored:
        """The content of a JSON file that must be there, checked against a type."""
        found = self._required(name, stage)
        with reading(self.root / name, _again(stage)):
            return checked(kind, found)

    def _arrays(self, name: str, stage: str) -> dict[str, np.ndarray]:
        """The arrays of a file that must be there."""
        if not name.startswith(f"{POINTS}/"):  # those have no checksums
            self._check(name)
        return read_arrays(self.root / name, _again(stage))

    @property
    def manifest(self) -> Manifest | None:
        """The manifest as it is now; None where the folder is no workspace."""
        return read_manifest(self.root)

    # Photos

    @property
    def has_photos(self) -> bool:
        """True where a workspace keeps its photos."""
        return (self.root / PHOTO_SET).is_file()

    @cached_property
    def photo_set(self) -> PhotoSet:
        """The photos of the run.

        Raises:
            ReconError: they are not there, or damaged.
        """
        stored = self._required(PHOTO_SET, "photos")
        with reading(self.root / PHOTO_SET, _again("photos")):
            return photo_set_from_json(stored)

    @cached_property
    def photos(self) -> dict[str, Photo]:
        """The photos that the run used, by name; empty for a folder that is no workspace."""
        if self._database is not None or not self.has_photos:
            return {}
        return {photo.name: photo for photo in self.photo_set.photos}

    @property
    def given(self) -> frozenset[str]:
        """Names of all photos that the run was given, those that it could not use included."""
        left_out = self.photo_set.left_out if self.photos else ()
        return frozenset((*self.photos, *(one.name for one in left_out)))

    @cached_property
    def source(self) -> Path | None:
        """The folder of the photos that the run was made from: as its manifest says, or ``images`` beside a model."""
        manifest = self.manifest if self.has_photos else None
        if manifest is not None:
            return Path(manifest.source) if manifest.source else None
        return self.root / "images" if (self.root / "images").is_dir() else None

    def photo_png(self, name: str) -> Path:
        """The file of a photo's pixels at working size."""
        return self.root / PHOTOS / photo_file(name)

    def mask_png(self, name: str) -> Path:
        """The file of a photo's mask at working size; white may be used."""
        return self.root / PHOTOS / mask_file(name)

    def rgb(self, photo: Photo) -> UInt8[np.ndarray, "h w 3"]:
        """A photo's pixels at working size."""
        return self._picture(self.photo_png(photo.name), photo)

    def _picture(self, path: Path, photo: Photo) -> UInt8[np.ndarray, "h w 3"]:
        """A picture at the working size of a photo."""
        rgb = read_png(path)
        if rgb.shape[:2] != (photo.height, photo.width):
            raise ReconError(f"{path}: is of another size than {PHOTO_SET} says; {_again('photos')}")
        return rgb

    def named_rgb(self, name: str) -> UInt8[np.ndarray, "h w 3"] | None:
        """A photo's pixels at working size; None where the run does not keep them."""
        path = self.photo_png(name)
        return read_png(path) if path.is_file() else None

    def grey(self, photo: Photo) -> Any:
        """Luminance of a photo at working size, uint8."""
        return cv2.cvtColor(self.rgb(photo), cv2.COLOR_RGB2GRAY)

    def greys(self) -> Sequence[Float32[np.ndarray, "h w"]]:
        """Luminance of all photos at working size, 0…255, read when asked for."""
        photos = self.photo_set.photos
        return Lazy(len(photos), lambda i: self.grey(photos[i]).astype(np.float32))

    def mask(self, photo: Photo) -> Bool[np.ndarray, "h w"] | None:
        """True where a photo may be used, at working size; None when there is no mask."""
        if not photo.has_mask:
            return None
        mask: np.ndarray = self._picture(self.mask_png(photo.name), photo)[:, :, 0] >= 128
        return mask

    def original_size(self, name: str) -> tuple[int, int] | None:
        """Width and height of a photo's file, orientation applied; None where unknown."""
        photo = self.photos.get(name)
        if photo is not None:
            return photo.original_width, photo.original_height
        return self.database_sizes.get(name)

    def write_photo_set(self, photo_set: PhotoSet) -> None:
        """Write ``photos.json``."""
        self.files.write_json(PHOTO_SET, photo_set_to_json(photo_set))

    # Interest points and pairs

    def points(self, photo_id: int) -> InterestPoints:
        """The interest points of one photo, at working size."""
        name = f"{POINTS}/{photo_id}.npz"
        data = self._arrays(name, "features")
        with reading(self.root / name, _again("features")):
            points = InterestPoints(data["xy"], data["sigma"], data["orientation"], data["descriptors"])
            count = len(points.sigma)
            shapes = points.xy.shape, points.orientation.shape, points.descriptors.shape
            if shapes != ((count, 2), (count,), (count, 128)) or not np.isfinite(points.xy).all():
                raise ValueError("its arrays do not fit together")
            return points

    def points_key(self, photo_id: int) -> str:
        """Hash of the interest points of a photo."""
        return self._file_key(self.path(POINTS, f"{photo_id}.npz"))

    def photo_key(self, photo: Photo) -> str:
        """Hash of what stages see of a photo: its pixels and its mask at working size."""
        names = [self.photo_png(photo.name), *([self.mask_png(photo.name)] if photo.has_mask else [])]
        return "+".join(self._file_key(path) for path in names)

    def _file_key(self, path: Path) -> str:
        """Hash of a file's bytes; computed once, as files do not change while a stage reads them."""
        if path not in self._file_keys:
            self._file_keys[path] = file_sha256(path)
        return self._file_keys[path]

    @cached_property
    def pair_entries(self) -> list[dict[str, Any]]:
        """The pairs chosen for matching: names ``a`` and ``b``, ids ``i`` and ``j``, ``sparse_inliers``."""
        if self._database is not None or not self.path(PAIRS).exists():
            return []
        entries = self._stored(PAIRS, "pairs", list[_PairEntry])
        names = {photo.id: name for name, photo in self.photos.items()}
        for one in entries:
            if not one.i < one.j or (names and (names.get(one.i), names.get(one.j)) != (one.a, one.b)):
                raise ReconError(
                    f"{self.root / PAIRS}: has the pair {one.a}, {one.b}, which {PHOTO_SET} has not; {_again('pairs')}"
                )
        return [asdict(one) for one in entries]

    @property
    def pairs(self) -> list[Pair]:
        """The pairs chosen for matching, by ids."""
        return [(entry["i"], entry["j"]) for entry in self.pair_entries]

    @cached_property
    def named_pairs(self) -> tuple[NamePair, ...]:
        """The pairs chosen for matching, by names, in the order of their ids; empty without ``pairs.json``."""
        return tuple((entry["a"], entry["b"]) for entry in self.pair_entries)

    def _photos_of(self, pair: NamePair) -> tuple[Photo, Photo]:
        a, b = (self.photos.get(name) for name in pair)
        if a is None or b is None:
            raise ReconError(
                f"{self.root / PHOTO_SET}: does not have the photos {pair[0]} and {pair[1]} of {PAIRS}; "
                f"{_again('photos')}"
            )
        return a, b

    @cached_property
    def _looks(self) -> dict[Pair, Int[np.ndarray, "n 2"]]:
        return self.sparse_matches()

    def sparse_matches(self) -> dict[Pair, Int64[np.ndarray, "n 2"]]:
        """Verified sparse matches of every candidate pair that had enough: indices of interest points."""
        data = self._arrays(SPARSE_MATCHES, "pairs")
        with reading(self.root / SPARSE_MATCHES, _again("pairs")):
            found = {}
            for key, rows in data.items():
                i, j = map(int, key.split("_"))
                if rows.ndim != 2 or rows.shape[1] != 2 or rows.dtype.kind not in "iu" or (rows < 0).any():
                    raise ValueError(f"the matches of pair {key} are no pairs of points")
                found[i, j] = rows
            return found

    def write_pairs(
        self, inliers: Mapping[Pair, int], matches: Mapping[Pair, Int64[np.ndarray, "n 2"]]
    ) -> None:
        """Write ``pairs.json`` and ``sparse_matches.npz``.

        Args:
            inliers: sparse matches that agree with the geometry, for every pair that was chosen.
            matches: of every candidate pair that had enough: indices of interest points.
        """
        arrays: dict[str, Any] = {f"{i}_{j}": rows for (i, j), rows in matches.items()}
        self.files.write_npz(SPARSE_MATCHES, **arrays)
        photos = self.photo_set.photos
        self.files.write_json(
            PAIRS,
            [
                {"a": photos[i].name, "b": photos[j].name, "i": i, "j": j, "sparse_inliers": count}
                for (i, j), count in inliers.items()
            ],
        )

    def kept_looks(self) -> dict[str, Int64[np.ndarray, "n 2"]]:
        """The sparse matches of every pair that was looked at, by the key of all that they depend on."""
        try:
            data = read_arrays(self.path(LOOKS))
            with reading(self.path(LOOKS)):
                ends, rows = data["ends"], data["rows"].astype(np.int64).reshape(-1, 2)
                parts = np.split(rows, ends[:-1]) if len(ends) else []
                return {str(key): part for key, part in zip(data["keys"], parts, strict=True)}
        except ReconError:  # damaged or not there: every pair is looked at anew
            return {}

    def write_looks(self, looks: Mapping[str, Int64[np.ndarray, "n 2"]]) -> None:
        """Write what ``kept_looks`` reads; pairs that showed nothing are kept as well."""
        rows = np.concatenate(
            [np.zeros((0, 2), np.int32), *(found.astype(np.int32) for found in looks.values())]
        )
        ends = np.cumsum([len(found) for found in looks.values()], dtype=np.int64)
        self.files.write_npz(LOOKS, keys=np.array(list(looks), "U64"), ends=ends, rows=rows)

    def kept_vocabulary(self) -> tuple[list[str], Float32[np.ndarray, "w 128"]] | None:
        """The keys of the points that the words of retrieval were trained on, photo by photo, and the words."""
        try:
            data = read_arrays(self.path(VOCABULARY))
            return [str(key) for key in data["keys"]], data["words"]
        except (ReconError, KeyError):
            return None

    def write_vocabulary(self, keys: Sequence[str], words: Float32[np.ndarray, "w 128"]) -> None:
        """Write what ``kept_vocabulary`` reads."""
        self.files.write_npz(VOCABULARY, keys=np.array(keys, "U64"), words=words)

    # Matches

    @cached_property
    def matching(self) -> Matching:
        """The matcher that ran, and the pairs on which it gave a result."""
        found = self._stored(MATCHING, "match", Matching)
        ids = range(len(self.photo_set.photos)) if self.has_photos else None
        if ids is not None and any(i not in ids or j not in ids for i, j in found.pairs):
            raise ReconError(
                f"{self.root / MATCHING}: has pairs of photos that are not there; {_again('match')}"
            )
        return found

    @cached_property
    def is_dense(self) -> bool:
        """True for the workspace of a dense matcher."""
        if self.path(MATCHING).exists():
            return self._stored(MATCHING, "match", _Kind).kind == "dense"
        return (self.root / FLOWS).is_dir() and not (self.root / MATCHES).is_dir()

    def match_path(self, pair: Pair, *, dense: bool) -> Path:
        """Path of the matches of a pair."""
        i, j = pair
        return self.path(FLOWS, f"{i}_{j}") if dense else self.path(MATCHES, f"{i}_{j}.npz")

    def dense_match(self, pair: Pair) -> DenseMatch:
        """Both directions of a pair, as the matcher left them (flow to within 1/64 px)."""
        return read_dense_match(self.match_path(pair, dense=True))

    def directed_match(self, source: int, target: int) -> DirectedMatch:
        """The dense match of two photos in one direction, in half the time of both."""
        pair = (min(source, target), max(source, target))
        return read_directed_match(self.match_path(pair, dense=True), forward=source < target)

    def dense_matches(
        self,
        pairs: Iterable[Pair],
        then: Callable[[Pair, DenseMatch], DenseMatch] | None = None,
        elsewhere: Mapping[Pair, Path] | None = None,
    ) -> DenseMatches:
        """The dense matches of some pairs, read when asked for; ``then`` changes each before it is handed out."""
        return DenseMatches(self.path(FLOWS), pairs, then, elsewhere=elsewhere)

    def seen_match(self, pair: Pair) -> MatchedPoints | None:
        """The interest points of a pair that the verified sparse first look matched; None without one."""
        rows = self._looks.get(pair)
        if rows is None:
            return None
        return MatchedPoints(self.points(pair[0]).rows(rows[:, 0]), self.points(pair[1]).rows(rows[:, 1]))

    def two_view_matrix(self, pair: Pair) -> tuple[str, Float64[np.ndarray, "3 3"]]:
        """The model (E, F or H) of an edge of the view graph and its matrix, in pixels at working size."""
        name = f"{pair[0]}_{pair[1]}"
        with reading(self.path(TWO_VIEW), _again("verify")):
            return str(self._two_view[f"{name}_model"][0]), self._two_view[f"{name}_matrix"].reshape(3, 3)

    def sparse_match(self, pair: Pair) -> SparseMatch:
        """The point matches of a pair as a sparse matcher left them, at the photos' working size."""
        return read_sparse_match(self.match_path(pair, dense=False))

    def matches(self, limit: int = 20_000, seed: int = 0) -> Iterator[tuple[NamePair, SparseMatch, int]]:
        """The matches of every pair by names, in pixels of the working size, and how many there are.

        A dense matcher's matches are the consistent pixels of A and where their flow points; of more than ``limit``
        a seeded sample is handed over. A pair of a workspace for which the matcher left nothing has no matches. Without
        a workspace's own files the verified matches of a COLMAP database (the raw ones where nothing was verified) are
        read.

        Raises:
            ReconError: a file is damaged.
        """
        if not self.named_pairs:
            yield from matches_from_database(self._database or self.root, limit, seed)
            return
        for pair in self.named_pairs:
            found = self.named_matches(pair, limit, seed)
            yield (pair, *found) if found is not None else (pair, no_matches(), 0)

    def named_matches(
        self, pair: NamePair, limit: int | None = 20_000, seed: int = 0
    ) -> tuple[SparseMatch, int] | None:
        """The matches of one pair of the workspace, and how many there are; None where there are none on disk."""
        a, b = self._photos_of(pair)
        path = self.match_path((a.id, b.id), dense=self.is_dense)
        if not path.exists():
            return None
        if self.is_dense:
            return sampled_dense_match(path, (a.width, a.height), (b.width, b.height), limit, seed)
        return sampled_sparse_match(path, limit, seed)

    def named_flow(
        self, pair: NamePair
    ) -> tuple[Float32[np.ndarray, "h w 2"], Bool[np.ndarray, "h w"]] | None:
        """The flow from the first to the second photo of a pair at the size of matching, and where it is consistent;
        None where there is none."""
        if not self.is_dense or any(name not in self.photos for name in pair):
            return None
        i, j = (self.photos[name].id for name in pair)
        for ids, side in (((i, j), "a"), ((j, i), "b")):
            path = self.match_path(ids, dense=True)
            if path.is_dir():
                steps, consistent = read_zarr(path / f"flow_{side}"), read_zarr(path / f"consistent_{side}")
                check_field(path, steps, consistent)
                return steps.astype(np.float32) * np.float32(FLOW_STEP), consistent.astype(bool)
        return None

    def flow_shape(self, name: str) -> tuple[int, int] | None:
        """Rows and columns of the flow from a photo; None where no pair has it."""
        for pair in self.named_pairs:
            if name in pair:
                i, j = (one.id for one in self._photos_of(pair))
                side = "consistent_a" if pair[0] == name else "consistent_b"
                path = self.match_path((i, j), dense=True) / side
                if path.is_dir():
                    rows, columns = read_zarr(path).shape
                    return int(rows), int(columns)
        return None

    @cached_property
    def database_sizes(self) -> dict[str, tuple[int, int]]:
        """Width and height of the images of the COLMAP database, by name."""
        return photo_sizes_from_database(self._database or self.root)

    def field_pairs(self) -> list[Pair]:
        """The pairs that have a dense field."""
        return list(self._stored(FIELDS, "fields", _Fields).pairs)

    def write_fields(self, matcher: str, pairs: Iterable[Pair]) -> None:
        """Write which dense matcher gave a field for which pairs."""
        self.files.write_json(FIELDS, {"matcher": matcher, "pairs": [list(pair) for pair in pairs]})

    # View graph and tracks

    def view_graph(self) -> nx.Graph[int]:
        """The pruned view graph; nodes are photo ids."""
        self._check(GRAPH)
        with reading(self.path(GRAPH), _again("verify")):
            graph = nx.read_graphml(self.path(GRAPH), node_type=int)
            if self.has_photos and not set(graph.nodes) <= set(range(len(self.photo_set.photos))):
                raise ValueError(f"it has photos that {PHOTO_SET} has not")
            return graph

    def edges(self) -> list[Pair]:
        """The edges of the view graph, each ascending, sorted."""
        return sorted((min(edge), max(edge)) for edge in self.view_graph().edges)

    def verification(self) -> dict[str, Any]:
        """Counts of what verification kept and dropped."""
        return self._stored(VERIFICATION, "verify", dict[str, Any])

    @cached_property
    def _two_view(self) -> dict[str, np.ndarray]:
        return self._arrays(TWO_VIEW, "verify")

    def inliers(self, pair: Pair) -> Bool[np.ndarray, " n"]:
        """The point matches of an edge of the view graph that agree with its geometry: after a sparse matcher, or of
        the first look where that contradicts the dense match (``edges_by_points``)."""
        with reading(self.path(TWO_VIEW), _again("verify")):
            return self._two_view[f"{pair[0]}_{pair[1]}_agrees"].astype(bool)

    def named_two_view_poses(self) -> dict[NamePair, Float64[np.ndarray, "3 4"]] | None:
        """``b_from_a`` of every pair whose relative pose was found from its own matches; None without the file."""
        path = self.path(TWO_VIEW)
        if not path.is_file():
            return None
        names = {photo.id: name for name, photo in self.photos.items()}
        found = {}
        with reading(path, _again("verify")):
            for key, pose in self._two_view.items():
                if key.endswith("_pose"):
                    i, j = (int(part) for part in key.split("_")[:2])
                    if i in names and j in names:
                        found[names[i], names[j]] = np.asarray(pose, np.float64).reshape(3, 4)
        return found

    def edges_by_points(self) -> set[Pair]:
        """The edges of the view graph, each ascending, whose sparse matches hold, and not the dense one."""
        edges = self.view_graph().edges(data="by_points", default=False)
        return {(min(a, b), max(a, b)) for a, b, by_points in edges if by_points}

    def write_two_view(self, found: Mapping[Pair, TwoViewGeometry], *, with_inliers: Container[Pair]) -> None:
        """Write the geometry of pairs, and of those in ``with_inliers`` which point matches agree with it."""
        arrays: dict[str, Any] = {}
        for (i, j), geometry in found.items():
            arrays[f"{i}_{j}_matrix"] = geometry.matrix
            if geometry.b_from_a is not None:
                arrays[f"{i}_{j}_pose"] = geometry.b_from_a
            arrays[f"{i}_{j}_inliers"] = np.array([geometry.inlier_count])
            if (i, j) in with_inliers:
                arrays[f"{i}_{j}_agrees"] = geometry.inliers
            arrays[f"{i}_{j}_model"] = np.array([geometry.model])
        self.files.write_npz(TWO_VIEW, **arrays)

    def tracks(self, photos: int | None = None) -> Tracks:
        """The tracks of the stage of that name.

        Args:
            photos: how many photos they may have; None for those of the run as it is.
        """
        data = self._arrays(TRACKS, "tracks")
        with reading(self.path(TRACKS), _again("tracks")):
            tracks = Tracks(
                data["track_id"],
                data["photo_id"],
                data["xy"],
                data.get("is_reference"),
                data.get("affinity"),
            )
            self._check_tracks(tracks, photos)
        return tracks

    def _check_tracks(self, tracks: Tracks, photos: int | None) -> None:
        """Refuse arrays that do not fit together, and photos that are not there."""
        count = len(tracks.xy)
        wanted = {"track_id": (count,), "photo_id": (count,), "xy": (count, 2)}
        wanted |= {"is_reference": (count,)} if tracks.is_reference is not None else {}
        wanted |= {"affinity": (count, 2, 2)} if tracks.affinity is not None else {}
        for name, shape in wanted.items():
            if getattr(tracks, name).shape != shape or not np.isfinite(getattr(tracks, name)).all():
                raise ValueError(f"array {name} does not fit")
        ids = np.concatenate([tracks.track_id, tracks.photo_id])
        if ids.dtype.kind not in "iu" or (ids < 0).any() or (tracks.track_id > count).any():
            raise ValueError("it has ids that cannot be")
        if photos is None and self.has_photos:
            photos = len(self.photo_set.photos)
        if photos is not None and (tracks.photo_id >= photos).any():
            raise ValueError(f"it has photos that {PHOTO_SET} has not")

    def write_tracks(self, tracks: Tracks) -> None:
        """Write tracks as arrays; what is not known is left out."""
        self.files.write_npz(TRACKS, **_track_arrays(tracks))

    @property
    def track_options(self) -> dict[str, Any]:
        """The options that the dense tracks were made with; empty where the stage did not write them."""
        if not self.path(TRACK_OPTIONS).exists():
            return {}
        return self._stored(TRACK_OPTIONS, "tracks", dict[str, Any])

    def write_track_options(self, options: Mapping[str, Any]) -> None:
        """Write the options that the dense tracks were made with."""
        self.files.write_json(TRACK_OPTIONS, options)

    # Cameras

    @cached_property
    def model_folder(self) -> Path | None:
        """The folder of the COLMAP model."""
        if self._model is not None:
            found = find_model(self._model)
            if found is None:
                raise ReconError(f"{self._model}: no COLMAP model (images.bin or images.txt) is here")
            return found
        return None if self._only_surface else find_model(self.root)

    @cached_property
    def model(self) -> Any:
        """The COLMAP model, None where there is none.

        Raises:
            ReconError: it cannot be read.
        """
        if self.model_folder is None:
            return None
        from recon.core.colmap import read_reconstruction

        if self._model is None:
            self._check("sparse/0")
        return read_reconstruction(self.model_folder)

    @property
    def reconstruction(self) -> Any:
        """The COLMAP model.

        Raises:
            ReconError: there is none, or it cannot be read.
        """
        if self.model is None:
            raise ReconError(
                f"{self.root}: has no cameras yet (sparse/0 is missing); run 'recon reconstruct' as far as stage map"
            )
        return self.model

    @cached_property
    def cameras(self) -> dict[str, Camera]:
        """The registered cameras by photo name."""
        return {} if self.model is None else registered_cameras(self.model)

    def adjusted_cameras(self) -> dict[str, Camera]:
        """The cameras as an adjustment to control points or exact positions has them, in the run's own frame; none
        without one."""
        folder = self.root / ADJUSTED
        if not any((folder / name).is_file() for name in _MODEL_FILES):
            return {}
        from recon.core.colmap import read_reconstruction

        return registered_cameras(read_reconstruction(folder))

    @cached_property
    def poses(self) -> dict[str, Float64[np.ndarray, "3 4"]]:
        """``cam_from_world`` of the registered cameras by photo name."""
        return {name: camera.cam_from_world for name, camera in self.cameras.items()}

    def views(self) -> list[PinholeView]:
        """Pinhole views of the registered photos at working size, by ascending photo id."""
        from recon.sfm.adapter import views_from_reconstruction

        return views_from_reconstruction(self.reconstruction, self.photo_set)

    def intrinsics(self) -> dict[int, Intrinsics]:
        """Intrinsics of the registered photos at working size, distortion included, by photo id."""
        from recon.sfm.adapter import intrinsics_from_reconstruction

        return intrinsics_from_reconstruction(self.reconstruction, self.photo_set)

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

    def models(self) -> list[dict[str, Any]]:
        """The models that mapping found: ``folder``, ``registered`` names, number of ``points``."""
        return [asdict(model) for model in self._stored(MAPPING, "map", _Mapping).models]

    def left_out(self) -> list[LeftOut]:
        """Photos that are not in the model, and why."""
        return list(self._stored(MAPPING, "map", _Mapping).left_out)

    def trust(self) -> dict[str, Any] | None:
        """Verdict on the cameras (``Trust.as_json``), with what depth says of them where it is there; None where that
        was not asked."""
        if not self.path(TRUST).exists():
            return None
        from recon.sfm.trust import DEPTH_FIGURES, with_depth

        trust = self._stored(TRUST, "map", dict[str, Any])
        depth = None if self.manifest is None else self.manifest.stages.get("depth")
        counts = depth.counts if depth is not None and depth.state == "done" else {}
        return with_depth(trust, {key: counts[key] for key in DEPTH_FIGURES if key in counts})

    def write_models(
        self,
        models: Sequence[Any],
        left_out: Sequence[LeftOut],
        tracks: Tracks | None = None,
        sources: Mapping[str, Any] | None = None,
    ) -> None:
        """Write COLMAP models, the chosen one first, and which photos are in none.

        Args:
            models: ``pycolmap.Reconstruction``.
            left_out: photos that no model holds, beside those that the run could not use at all.
            tracks: whose observations are the keypoints of the chosen model.
            sources: what the chosen model was made from, for a run of more or fewer photos.
        """
        with self.files.fresh_directory(MODELS) as folder:
            for index, model in enumerate(models):
                target = folder / str(index)
                target.mkdir()
                model.write(target)
            if tracks is not None and sources is not None:
                with (folder / MODEL_TRACKS).open("wb") as stream:
                    np.savez(stream, **_track_arrays(tracks))
                stored = {**sources, "model": _model_hash(folder / "0")}
                (folder / MODEL_SOURCES).write_text(json.dumps(stored, indent=0) + "\n", encoding="utf-8")
        listed = [
            {
                "folder": f"sparse/{index}",
                "registered": sorted(image.name for image in model.images.values() if image.has_pose),
                "points": model.num_points3D(),
            }
            for index, model in enumerate(models)
        ]
        missing = [{"name": out.name, "reason": out.reason} for out in (*self.photo_set.left_out, *left_out)]
        self.files.write_json(MAPPING, {"models": listed, "left_out": missing})

    # Dense results

    @cached_property
    def cloud_path(self) -> Path | None:
        """The file of the dense cloud."""
        return self._cloud if self._only_surface else find_cloud(self.root)

    @cached_property
    def mesh_path(self) -> Path | None:
        """The file of the mesh."""
        return self._mesh if self._only_surface else find_mesh(self.root)

    def depth_map(self, photo_id: int) -> DepthMap:
        """The depth map of a photo."""
        return read_depth(self.path(DEPTH, f"{photo_id}.npz"))

    @property
    def depth_max_size(self) -> int:
        """Longest side that the depth maps were limited to."""
        return self._stored(f"{DEPTH}/{DEPTH_SIZE}", "depth", _DepthSize).max_size

    def named_depth(self, name: str) -> Float32[np.ndarray, "h w"] | None:
        """The depth of a photo in the run's units, 0 where unknown: recon's own, or as other programs leave it."""
        photo = self.photos.get(name)
        path = self.path(DEPTH, f"{photo.id}.npz") if photo else None
        if path is not None and path.is_file():
            return read_depth(path).depth
        for folder in ("stereo/depth_maps", "dense/stereo/depth_maps", "dense/0/stereo/depth_maps", "."):
            for suffix in (".geometric.bin", ".photometric.bin", ".npy", ".npz", ".pfm"):
                candidate = self.root / folder / f"{name}{suffix}"
                if candidate.is_file():
                    from recon.io.depth_maps import read_depth_map

                    return read_depth_map(candidate)
        return None

    def cloud(self) -> FusedCloud | None:
        """The dense points; None where there are none. Kept once they are read.

        Raises:
            ReconError: the file cannot be read, or holds no finite point.
        """
        return self._read_cloud

    @cached_property
    def _read_cloud(self) -> FusedCloud | None:
        if self.cloud_path is None:
            return None
        from recon.io.surfaces import read_points_ply

        found = read_points_ply(self.cloud_path)
        if not np.isfinite(found.xyz).all(axis=1).any():
            raise ReconError(
                f"{self.cloud_path}: holds no points that could be judged ({len(found)} in the file); make it anew"
            )
        return replace(found, xyz=found.xyz * np.float32(self.scale)) if self.scale != 1.0 else found

    def mesh(self) -> Mesh | None:
        """The mesh in single precision; None where there is none. Kept once it is read.

        Raises:
            ReconError: the file cannot be read, or holds no faces.
        """
        return self._read_mesh

    @cached_property
    def _read_mesh(self) -> Mesh | None:
        if self.mesh_path is None:
            return None
        from recon.io.surfaces import read_mesh

        if not self.mesh_path.is_file():
            raise ReconError(f"{self.mesh_path}: no such file")
        try:
            found = mesh_from_open3d(read_mesh(self.mesh_path))
        except ReconError as error:
            raise ReconError(f"{error}; a file of points alone is judged with --what points") from error
        if self.scale == 1.0:
            return found
        return replace(found, vertices=found.vertices * np.float32(self.scale))

    def write_cloud(self, cloud: FusedCloud | Iterable[FusedCloud], count: int | None = None) -> None:
        """Write the dense points; see ``write_points_ply``."""
        from recon.io.surfaces import write_points_ply

        with self.files.writing(CLOUD) as path:
            write_points_ply(path, cloud, count)


def read_model_sources(folder: Path) -> tuple[dict[str, Any], Any, Tracks] | None:
    """What ``write_models`` noted of the chosen model, the model, and its tracks; None where that is not whole.

    Args:
        folder: of the models.
    """
    from recon.core.colmap import read_reconstruction

    try:
        sources = parse_json((folder / MODEL_SOURCES).read_text(encoding="utf-8"))
        if not isinstance(sources, dict) or sources.get("model") != _model_hash(folder / "0"):
            return None
        data = read_arrays(folder / MODEL_TRACKS)
        names = ("track_id", "photo_id", "xy", "is_reference", "affinity")
        tracks = Tracks(*(data[name] for name in names))
        return sources, read_reconstruction(folder / "0"), tracks
    except (OSError, ValueError, KeyError, ReconError):
        return None


def _model_hash(folder: Path) -> str:
    """Hash of the files of a model."""
    return "+".join(file_sha256(path) for path in sorted(folder.iterdir()))


def _track_arrays(tracks: Tracks) -> dict[str, Any]:
    """The arrays of tracks that are known."""
    arrays: dict[str, Any] = {"track_id": tracks.track_id, "photo_id": tracks.photo_id, "xy": tracks.xy}
    if tracks.is_reference is not None:
        arrays["is_reference"] = tracks.is_reference
    if tracks.affinity is not None:
        arrays["affinity"] = tracks.affinity
    return arrays


def write_points(path: Path, points: InterestPoints) -> None:
    """Write the interest points of one photo."""
    with open(path, "wb") as stream:
        np.savez(
            stream,
            xy=points.xy,
            sigma=points.sigma,
            orientation=points.orientation,
            descriptors=points.descriptors,
        )


def write_depth(path: Path, depth: DepthMap) -> None:
    """Write a depth map: depth in float32; normals and confidence in half precision (errors below 0.001)."""
    with open(path, "wb") as stream:
        np.savez(
            stream,
            depth=depth.depth,
            normal=depth.normal.astype(np.float16),
            confidence=depth.confidence.astype(np.float16),
        )


def read_depth(path: Path) -> DepthMap:
    """Read what ``write_depth`` wrote."""
    data = read_arrays(path, _again("depth"))
    with reading(path, _again("depth")):
        depth = DepthMap(
            data["depth"], data["normal"].astype(np.float32), data["confidence"].astype(np.float32)
        )
        shape = depth.depth.shape
        if len(shape) != 2 or depth.normal.shape != (*shape, 3) or depth.confidence.shape != shape:
            raise ValueError("its arrays do not fit together")
        if depth.depth.dtype != np.float32:
            raise ValueError("its depth is not of single precision")
        return depth
