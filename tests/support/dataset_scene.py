"""A small scene whose projections are worked out here, for writing it in every publisher's form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 24, 16
POINTS = np.array([[0.1, -0.2, 0.3], [-0.4, 0.25, -0.1], [0.5, 0.1, 0.2], [0.0, 0.0, 0.0]])


def turn(axis: tuple[float, float, float], degrees: float) -> np.ndarray:
    """Rodrigues' formula."""
    k = np.asarray(axis, float) / np.linalg.norm(axis)
    a = np.radians(degrees)
    cross = np.array([[0, -k[2], k[1]], [k[2], 0, -k[0]], [-k[1], k[0], 0]])
    return np.eye(3) + np.sin(a) * cross + (1 - np.cos(a)) * cross @ cross


K = np.array([[20.0, 0, 11.2], [0, 21.0, 7.9], [0, 0, 1]])
ROTATIONS = [turn((0.2, 1, 0.1), 5), turn((0.1, 1, -0.3), -12), turn((1, 0.3, 0.2), 9)]
CENTERS = [np.array([-0.3, 0.1, -3.0]), np.array([0.4, -0.1, -2.8]), np.array([0.1, 0.5, -3.2])]


def pixels(index: int, points: np.ndarray = POINTS) -> np.ndarray:
    """Where points are seen, counted from the centre of the top-left pixel."""
    camera = (points - CENTERS[index]) @ ROTATIONS[index].T
    image = camera @ K.T
    return image[:, :2] / image[:, 2:]


def seen_by(camera: object, points: np.ndarray = POINTS) -> np.ndarray:
    """Where a camera that was read says that it sees points."""
    local = camera.to_camera(points)  # type: ignore[attr-defined]
    image = local @ camera.K.T  # type: ignore[attr-defined]
    return image[:, :2] / image[:, 2:]


def write_images(folder: Path, names: list[str], size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (40 * i, 80, 120)).save(folder / name)


def row(values: np.ndarray) -> str:
    return " ".join(repr(float(v)) for v in np.asarray(values).ravel())


def write_ply(path: Path, points: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f"ply\nformat ascii 1.0\nelement vertex {len(points)}\n"
    head += "".join(f"property float {axis}\n" for axis in "xyz") + "end_header\n"
    path.write_text(head + "".join(f"{row(p)}\n" for p in points))
