"""Cameras as MVSNet writes them: BlendedMVS, and DTU and others in that form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from recon.core.posed import Camera
from recon.datasets.readers.common import Reader, image_files, image_size, numbers, read_text, rotation
from recon.datasets.types import GroundTruth, TruthPair, true_camera
from recon.errors import ReconError


def knows_blended(folder: Path) -> bool:
    """Tell whether a folder is laid out as a scene of BlendedMVS."""
    return (folder / "blended_images").is_dir() and (folder / "cams").is_dir()


def read_blended(folder: Path) -> GroundTruth:
    """Read a scene of BlendedMVS: ``blended_images``, ``cams``, ``rendered_depth_maps``; no metric scale.

    Raises:
        ReconError: something cannot be read.
    """
    images = folder / "blended_images"
    cameras = cameras_in(folder / "cams", images)
    depths = folder / "rendered_depth_maps"
    return GroundTruth(
        folder.name,
        images,
        cameras,
        None,
        BLENDED.name,
        depth=depth_from(depths, cameras) if depths.is_dir() else None,
        pairs=pairs_in(folder / "cams" / "pair.txt", cameras),
        note="photos are blended with renderings of the mesh that the truth is",
    )


def knows_mvsnet(folder: Path) -> bool:
    """Tell whether a folder has ``images`` and ``cams`` in MVSNet's form."""
    return (folder / "images").is_dir() and bool(_camera_files(folder / "cams"))


def read_mvsnet(folder: Path) -> GroundTruth:
    """Read a scene in MVSNet's form: ``images``, ``cams`` and ``pair.txt``.

    Raises:
        ReconError: something cannot be read.
    """
    cameras = cameras_in(folder / "cams", folder / "images")
    depths = next((folder / n for n in ("depths", "depth_gt", "Depths") if (folder / n).is_dir()), None)
    return GroundTruth(
        folder.name,
        folder / "images",
        cameras,
        None,
        MVSNET.name,
        depth=depth_from(depths, cameras) if depths is not None else None,
        pairs=pairs_in(folder / "pair.txt", cameras),
    )


def cameras_in(folder: Path, images: Path) -> dict[str, Camera]:
    """Read ``XXXXXXXX_cam.txt`` files, by the name of the photo with that number.

    Raises:
        ReconError: a file cannot be read, or none is there.
    """
    photos = {path.stem: path for path in image_files(images)}
    cameras = {}
    for path in _camera_files(folder):
        stem = path.name.removesuffix("_cam.txt")
        if stem in photos:
            cameras[photos[stem].name] = read_camera(path, image_size(photos[stem]))
    if not cameras:
        raise ReconError(f"{folder}: no camera file has a photo in {images}")
    return cameras


def read_camera(path: Path, size: tuple[int, int]) -> Camera:
    """Read one camera: ``extrinsic`` and a 4x4 ``cam_from_world``, ``intrinsic`` and K, depth range.

    Pixels count from the centre of the top-left one, as here.

    Raises:
        ReconError: the file is not of this form.
    """
    words = read_text(path).split()
    if len(words) < 27 or words[0] != "extrinsic" or words[17] != "intrinsic":
        raise ReconError(
            f"{path}: is no camera of MVSNet's form (extrinsic, 16 numbers, intrinsic, 9 numbers)"
        )
    pose = numbers(" ".join(words[1:17]), path, 16).reshape(4, 4)
    K = numbers(" ".join(words[18:27]), path, 9).reshape(3, 3)
    return true_camera(*size, K, rotation(pose[:3, :3], path), pose[:3, 3])


def pairs_in(path: Path, cameras: Mapping[str, Camera]) -> tuple[TruthPair, ...]:
    """Read ``pair.txt``: number of photos; then for each its number, and count, number, score, …

    Returns:
        Each pair once, with its relative pose; empty where there is no such file.

    Raises:
        ReconError: the file is not of this form.
    """
    if not path.is_file():
        return ()
    values = numbers(read_text(path), path)
    by_number = {int(Path(name).stem): name for name in cameras if Path(name).stem.isdigit()}
    found: dict[tuple[str, str], TruthPair] = {}
    try:
        at = 1
        for _ in range(int(values[0])):
            source, count = int(values[at]), int(values[at + 1])
            for k in range(count):
                target = int(values[at + 2 + 2 * k])
                if source in by_number and target in by_number:
                    a, b = sorted((by_number[source], by_number[target]))
                    found.setdefault((a, b), _relative(a, b, cameras))
            at += 2 + 2 * count
    except IndexError as error:
        raise ReconError(f"{path}: is cut short") from error
    return tuple(found.values())


def _relative(a: str, b: str, cameras: Mapping[str, Camera]) -> TruthPair:
    first, second = cameras[a].cam_from_world, cameras[b].cam_from_world
    R = second[:, :3] @ first[:, :3].T
    t = second[:, 3] - R @ first[:, 3]
    return TruthPair(a, b, cameras[a].K, cameras[b].K, np.column_stack([R, t]))


def depth_from(
    folder: Path, cameras: Mapping[str, Camera]
) -> Callable[[str], Float32[np.ndarray, "h w"] | None]:
    """Depth by photo name from ``XXXXXXXX.pfm`` files; 0 where unknown."""

    def depth(name: str) -> Float32[np.ndarray, "h w"] | None:
        path = folder / f"{Path(name).stem}.pfm"
        if name not in cameras or not path.is_file():
            return None
        z = read_pfm(path)
        if z.ndim != 2:
            raise ReconError(f"{path}: has colours where a depth map is expected")
        return np.where(np.isfinite(z) & (z > 0), z, 0).astype(np.float32)

    return depth


def read_pfm(path: Path) -> Float32[np.ndarray, "h w *c"]:
    """Read a portable float map: ``Pf`` or ``PF``, size, scale (negative: little-endian), rows bottom first.

    Raises:
        ReconError: the file is not a PFM, or is cut short.
    """
    try:
        with open(path, "rb") as file:
            kind = file.readline().strip()
            words = file.readline().split()
            if len(words) == 1:
                words += file.readline().split()
            scale = float(file.readline())
            data = file.read()
        width, height = int(words[0]), int(words[1])
    except (OSError, ValueError, IndexError) as error:
        raise ReconError(f"{path}: is no PFM file ({error})") from error
    channels = {b"Pf": 1, b"PF": 3}.get(kind, 0)
    if not channels or width < 1 or height < 1 or len(data) < 4 * width * height * channels:
        raise ReconError(f"{path}: is no PFM file, or is cut short")
    values = np.frombuffer(data, "<f4" if scale < 0 else ">f4", width * height * channels)
    image = values.reshape(height, width, channels)[::-1].astype(np.float32)
    return np.ascontiguousarray(image[..., 0] if channels == 1 else image)


def _camera_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*_cam.txt")) if folder.is_dir() else []


BLENDED = Reader("blendedmvs", "blended_images and cams", knows_blended, read_blended)
MVSNET = Reader("mvsnet", "images and cams/*_cam.txt", knows_mvsnet, read_mvsnet)
