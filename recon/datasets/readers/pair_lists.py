"""Lists of pairs with relative poses: MegaDepth-1500 and ScanNet-1500 as their users share them."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float64

from recon.datasets.readers.common import Reader, image_size, numbers, read_text, rotation
from recon.datasets.types import GroundTruth, TruthPair, true_camera
from recon.errors import ReconError

_TEXTS = ("pairs_calibrated.txt", "pairs.txt", "pairs_with_gt.txt")
_COLUMNS = (32, 36, 38)
_SCANNET_SIZE = (640, 480)
_SCANNET = re.compile(r"scene\d{4}_\d\d[/_]")
_SCENE_INFOS = "*_0.[0-9]_0.[0-9].npz"


def knows(folder: Path) -> bool:
    """Tell whether a file is a list of pairs, or a folder has one under a name in use."""
    if folder.is_file():
        if folder.suffix == ".npz":
            return bool({"pair_infos", "name"} & set(_members(folder)))
        return folder.suffix == ".txt" and _columns(folder) in _COLUMNS
    return _list_in(folder) is not None


def read(folder: Path) -> GroundTruth:
    """Read pairs with K and relative pose.

    Args:
        folder: the list, or a folder that has one:

            - text: ``name0 name1 K0 K1 R t`` (9 + 9 + 9 + 3 numbers, glue-factory's ``pairs_calibrated.txt``),
              the same with a 4x4 matrix in place of R and t, or ``name0 name1 rot0 rot1 K0 K1 T_0to1``
              (1 + 1 + 9 + 9 + 16, SuperGlue's);
            - ``.npz`` with image_paths, intrinsics, poses and pair_infos (LoFTR's scenes of MegaDepth-1500; a
              folder may have several), or with name and rel_pose, and ``intrinsics.npz`` beside it (LoFTR's
              ScanNet-1500).

    K belongs to the photos as they are on disk, except in LoFTR's ScanNet-1500, where it is for 640x480 pixels
    and is resized if the photos are larger. MegaDepth's K come from COLMAP: half a pixel is taken off their
    principal points.

    Raises:
        ReconError: the list cannot be read.
    """
    path = folder if folder.is_file() else _list_in(folder)
    if path is None:
        raise ReconError(f"{folder}: has no list of pairs")
    home = path.parent
    if path.suffix == ".txt":
        pairs = _from_text(path)
    elif "name" in _members(path):
        pairs = _from_scannet(path)
        images = _images(home, pairs[0].a) if pairs else home
        pairs = [_fitted(pair, images) for pair in pairs]
    else:
        infos = [path] if folder.is_file() else sorted(path.parent.glob(_SCENE_INFOS))
        pairs = [pair for info in infos for pair in _from_scene_info(info)]
    if not pairs:
        raise ReconError(f"{path}: lists no pair")
    images = _images(home, pairs[0].a)
    scannet = bool(_SCANNET.match(pairs[0].a))
    megadepth = not scannet and ("megadepth" in str(path).lower() or pairs[0].a.startswith("Undistorted_SfM"))
    if megadepth:
        pairs = [_shifted(pair) for pair in pairs]
    return GroundTruth(
        home.name,
        images,
        {},
        1.0 if scannet else None,
        READER.name,
        pairs=tuple(pairs),
        note="" if scannet else "relative poses without a common scale",
    )


def _from_text(path: Path) -> list[TruthPair]:
    pairs = []
    for line in read_text(path).splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        values = numbers(" ".join(words[2:]), path)
        turns = (0, 0)
        if len(values) == 36:
            turns = (int(values[0]) % 4, int(values[1]) % 4)
            K_a, K_b = values[2:11].reshape(3, 3), values[11:20].reshape(3, 3)
            pose = values[20:36].reshape(4, 4)[:3]
        elif len(values) == 30:
            K_a, K_b = values[:9].reshape(3, 3), values[9:18].reshape(3, 3)
            pose = np.column_stack([values[18:27].reshape(3, 3), values[27:30]])
        elif len(values) == 34:
            K_a, K_b = values[:9].reshape(3, 3), values[9:18].reshape(3, 3)
            pose = values[18:34].reshape(4, 4)[:3]
        else:
            raise ReconError(
                f"{path}: a line with {len(words)} columns; 32, 36 or 38 are expected: {line[:60]}"
            )
        pairs.append(TruthPair(words[0], words[1], K_a, K_b, _rigid(pose, path), turns[0], turns[1]))
    return pairs


def _from_scene_info(path: Path) -> list[TruthPair]:
    data = _load(path)
    names, K, poses = data["image_paths"], data["intrinsics"], data["poses"]
    pairs = []
    try:
        for info in data["pair_infos"]:
            (i, j), overlap = (int(info[0][0]), int(info[0][1])), float(info[1])
            a, b = np.asarray(poses[i], np.float64), np.asarray(poses[j], np.float64)
            pairs.append(
                TruthPair(
                    PurePosixPath(str(names[i])).as_posix(),
                    PurePosixPath(str(names[j])).as_posix(),
                    np.asarray(K[i], np.float64),
                    np.asarray(K[j], np.float64),
                    _rigid((b @ np.linalg.inv(a))[:3], path),
                    overlap=overlap,
                )
            )
    except (IndexError, TypeError, ValueError) as error:
        raise ReconError(
            f"{path}: is no list of MegaDepth's pairs ({type(error).__name__}: {error})"
        ) from error
    return pairs


def _from_scannet(path: Path) -> list[TruthPair]:
    data = _load(path)
    beside = path.with_name("intrinsics.npz")
    if "rel_pose" not in data or not beside.is_file():
        raise ReconError(f"{path}: needs rel_pose in it and {beside.name} beside it")
    K = {name: np.asarray(values, np.float64)[:3, :3] for name, values in _load(beside).items()}
    pairs = []
    for row, pose in zip(np.asarray(data["name"]), np.asarray(data["rel_pose"], np.float64), strict=True):
        scene = f"scene{int(row[0]):04d}_{int(row[1]):02d}"
        if scene not in K:
            raise ReconError(f"{beside}: has no intrinsics of {scene}")
        names = [f"{scene}/color/{int(number)}.jpg" for number in row[2:4]]
        pose = pose.reshape(-1)[:12].reshape(3, 4)
        pairs.append(TruthPair(names[0], names[1], K[scene], K[scene], _rigid(pose, path)))
    return pairs


def _rigid(pose: Float64[np.ndarray, "3 4"], path: Path) -> Float64[np.ndarray, "3 4"]:
    return np.column_stack([rotation(np.asarray(pose[:, :3], np.float64), path), pose[:, 3]])


def _shifted(pair: TruthPair) -> TruthPair:
    """Principal points from COLMAP's convention to ours."""
    from dataclasses import replace

    from recon.core.colmap import points_from_colmap

    moved = []
    for K in (pair.K_a, pair.K_b):
        K = K.copy()
        K[:2, 2] = points_from_colmap(K[:2, 2])
        moved.append(K)
    return replace(pair, K_a=moved[0], K_b=moved[1])


def _fitted(pair: TruthPair, images: Path) -> TruthPair:
    """K of 640x480 pixels at the size that the photos have on disk."""
    from dataclasses import replace

    fitted = []
    for name, K in ((pair.a, pair.K_a), (pair.b, pair.K_b)):
        path = images / name
        size = image_size(path) if path.is_file() else _SCANNET_SIZE
        camera = true_camera(*_SCANNET_SIZE, K, np.eye(3), np.zeros(3))
        fitted.append(K if size == _SCANNET_SIZE else camera.resized(*size).K)
    return replace(pair, K_a=fitted[0], K_b=fitted[1])


def _images(home: Path, name: str) -> Path:
    """The folder under which the first photo is found; the list's own if it is nowhere."""
    for folder in (home, home / "images", home / "Undistorted_SfM", home / "scannet_test_1500", home.parent):
        if (folder / name).is_file():
            return folder
    return home


def _list_in(folder: Path) -> Path | None:
    if not folder.is_dir():
        return None
    for name in _TEXTS:
        if (folder / name).is_file() and _columns(folder / name) in _COLUMNS:
            return folder / name
    infos = sorted(folder.glob(_SCENE_INFOS))
    if infos:
        return infos[0]
    test = folder / "test.npz"
    return test if test.is_file() and (folder / "intrinsics.npz").is_file() else None


def _columns(path: Path) -> int:
    """Number of words in the first line that is not a comment; 0 for what is no text."""
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                if line.strip() and not line.startswith("#"):
                    return len(line.split())
    except (OSError, UnicodeDecodeError):
        pass
    return 0


# ---- .npz without running what is in it ----------------------------------------------------------


class _ArraysOnly(pickle.Unpickler):
    """Unpickles arrays, numbers, texts and containers: nothing that could run code from a file."""

    _ALLOWED = frozenset(
        (f"numpy.{core}.{module}", name)
        for core in ("core", "_core")
        for module, name in (
            ("multiarray", "_reconstruct"),
            ("multiarray", "scalar"),
            ("numeric", "_frombuffer"),
        )
    ) | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a list of pairs")
        return super().find_class(module, name)


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile):
        return []


def _load(path: Path) -> Mapping[str, Any]:
    """The arrays of an .npz; arrays of objects are allowed as long as they hold data alone."""
    out = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                data = archive.read(name)
                file = io.BytesIO(data)
                version = np.lib.format.read_magic(file)
                header = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )(file)
                if header[2].hasobject:
                    out[name.removesuffix(".npy")] = _ArraysOnly(file).load()
                else:
                    out[name.removesuffix(".npy")] = np.load(io.BytesIO(data), allow_pickle=False)
    except (OSError, zipfile.BadZipFile, ValueError, EOFError, pickle.UnpicklingError, KeyError) as error:
        raise ReconError(f"{path}: cannot be read: {error}") from error
    return out


READER = Reader("pairs", "pairs_calibrated.txt, *_0.1_0.3.npz or test.npz with intrinsics.npz", knows, read)
