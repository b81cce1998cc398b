"""Strecha et al. 2008 (EPFL): a ``.camera`` file beside each photo, or in ``gt_dense_cameras``."""

from __future__ import annotations

from pathlib import Path

from recon.core.posed import Camera
from recon.datasets.readers.common import Reader, image_files, image_size, numbers, read_text, rotation
from recon.datasets.types import GroundTruth, true_camera
from recon.errors import ReconError

_FOLDERS = ("gt_dense_cameras", "cameras", ".", "images")


def knows(folder: Path) -> bool:
    """Tell whether a folder has ``.camera`` files where this benchmark has them."""
    return bool(_camera_files(folder))


def read(folder: Path) -> GroundTruth:
    """Read the cameras.

    A file holds, separated by white space: K (9 numbers), three numbers that are 0, R (9) that turns the
    camera's axes into the world's, the centre (3), width and height. Our rotation is its transpose. Pixels
    count from the centre of the top-left one, as here. Photos that were resized have their K resized.

    Raises:
        ReconError: a file cannot be read, or a photo is missing.
    """
    images = folder / "images" if (folder / "images").is_dir() else folder
    by_stem = {path.stem: path for path in image_files(images)}
    cameras = {}
    for path in _camera_files(folder):
        photo = images / path.stem  # 0000.jpg.camera
        if not photo.is_file():
            stem = Path(path.stem).stem
            if stem not in by_stem:
                raise ReconError(f"{path}: its photo {path.stem} is not in {images}")
            photo = by_stem[stem]
        cameras[photo.name] = _camera(path, photo)
    scans = sorted(folder.glob("*.ply"))
    return GroundTruth(
        folder.name, images, cameras, 1.0, READER.name, points=tuple(scans) if len(scans) == 1 else ()
    )


def _camera(path: Path, photo: Path) -> Camera:
    values = numbers(read_text(path), path, 26)
    R = rotation(values[12:21].reshape(3, 3), path).T
    width, height = int(values[24]), int(values[25])
    if width < 1 or height < 1:
        raise ReconError(f"{path}: says the photo is {width}x{height}")
    camera = true_camera(width, height, values[:9].reshape(3, 3), R, -R @ values[21:24])
    size = image_size(photo)
    return camera if size == (width, height) else camera.resized(*size)


def _camera_files(folder: Path) -> list[Path]:
    for name in _FOLDERS:
        found = sorted((folder / name).glob("*.camera")) if folder.is_dir() else []
        if found:
            return found
    return []


READER = Reader("strecha", "files *.camera", knows, read)
