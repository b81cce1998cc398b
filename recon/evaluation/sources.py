"""Truth and results from files of any of the forms that tools leave: COLMAP models, PLY, .flo, scenes with cameras."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from recon.datasets.ground_truth import GroundTruth, has_ground_truth, load_ground_truth
from recon.errors import ReconError, UsageError
from recon.run.folder import RunFolder, find_model

SURFACE_SUFFIXES = (".ply", ".obj", ".glb", ".off", ".stl")
_ASTRAY = 20.0
# Two surfaces of one scene whose sizes differ by more than this factor are in different units.


def read_truth(path: Path) -> GroundTruth:
    """Read what is known of a scene: a folder or file that ``recon.datasets`` knows, a COLMAP model, or the file of a
    surface.

    Raises:
        UsageError: there is no such file or folder.
        ReconError: it holds nothing that can be taken for the truth.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder; name the truth of the scene")
    if path.is_file() and path.suffix.lower() in SURFACE_SUFFIXES:
        if has_faces(path):
            return GroundTruth(path.stem, path.parent, {}, layout="file", mesh=path)
        return GroundTruth(path.stem, path.parent, {}, layout="file", points=(path,))
    if has_ground_truth(path):
        return load_ground_truth(path)
    model = find_model(path) if path.is_dir() else None
    if model is not None:
        return truth_from_colmap(model)
    raise ReconError(
        f"{path}: holds no truth that can be read; name a scene (cameras.json, or the layout of a benchmark), a folder "
        "with a COLMAP model, or a .ply, .obj, .glb, .off or .stl file"
    )


def truth_from_colmap(model: Path) -> GroundTruth:
    """Take the cameras of a COLMAP model (binary or text) for the truth.

    Raises:
        ReconError: it cannot be read, or has no cameras.
    """
    cameras = dict(RunFolder(model).cameras)
    if not cameras:
        raise ReconError(f"{model}: the model has no registered camera; name another one")
    return GroundTruth(model.name, model.parent / "images", cameras, layout="colmap")


def has_faces(path: Path) -> bool:
    """True if a file of a surface holds faces; other formats than PLY always do.

    Raises:
        ReconError: it cannot be read, or is no PLY although its name says so.
    """
    if path.suffix.lower() != ".ply":
        return True
    try:
        with open(path, "rb") as file:
            if file.readline().strip() != b"ply":
                raise ReconError(f"{path} is not a PLY file; name the file of a cloud or a mesh")
            for raw in file:
                words = raw.split()
                if words[:1] == [b"end_header"]:
                    return False
                if words[:2] == [b"element", b"face"]:
                    return int(words[2]) > 0
    except (OSError, ValueError, IndexError) as error:
        raise ReconError(f"{path}: cannot be read ({error})") from error
    raise ReconError(f"{path} ends within its header: write it again")


def check_same_world(
    points: Float[np.ndarray, "n 3"], truth: Float[np.ndarray, "m 3"], what: str, truth_name: str
) -> None:
    """Refuse to compare surfaces that cannot lie in one world: of very different size, or far from each other.

    Args:
        points, truth: of both surfaces.
        what, truth_name: how the message calls them.

    Raises:
        ReconError: the units or the places differ; the message says by how much.
    """
    low, high = _box(points)
    true_low, true_high = _box(truth)
    size, true_size = float(np.linalg.norm(high - low)), float(np.linalg.norm(true_high - true_low))
    if size > 0 and true_size > 0 and not 1 / _ASTRAY < size / true_size < _ASTRAY:
        raise ReconError(
            f"{what} is {size:.4g} units across and the truth {truth_name} {true_size:.4g}: the units differ by about "
            f"{true_size / size:.3g}; give --scale, or --cameras to align by the cameras that made it"
        )
    gap = np.maximum(np.maximum(true_low - high, low - true_high), 0)
    if float(np.linalg.norm(gap)) > max(size, true_size):
        raise ReconError(
            f"{what} and the truth {truth_name} lie {np.linalg.norm(gap):.4g} units apart, in different "
            "worlds; give --cameras to align by the cameras that made it"
        )


def _box(points: Float[np.ndarray, "n 3"]) -> tuple[np.ndarray, np.ndarray]:
    """From the 5th to the 95th percentile, which single points cannot stretch."""
    step = max(1, len(points) // 100_000)
    low, high = np.percentile(np.asarray(points, np.float64)[::step], [5, 95], axis=0)
    return low, high
