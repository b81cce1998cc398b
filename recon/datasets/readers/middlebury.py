"""Middlebury: multi-view stereo (Seitz et al. 2006) and optical flow (Baker et al. 2011); KITTI's flow."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32

from recon.datasets.readers.common import (
    IMAGE_SUFFIXES,
    Reader,
    image_files,
    image_size,
    numbers,
    read_text,
    rotation,
)
from recon.datasets.types import GroundTruth, true_camera
from recon.errors import ReconError
from recon.io.flo import read_true_flow

_BOX = re.compile(
    r"\(?(-?\d\S*)\s+(-?\d\S*)\s+(-?\d[^\s)]*)\)?\s*[\n\r]*\s*\(?(-?\d\S*)\s+(-?\d\S*)\s+(-?\d[^\s)]*)\)?"
)


def knows_stereo(folder: Path) -> bool:
    """Tell whether a folder has a ``*_par.txt``."""
    return folder.is_dir() and any(folder.glob("*_par.txt"))


def read_stereo(folder: Path) -> GroundTruth:
    """Read the cameras of one object, in metres.

    ``*_par.txt``: the number of photos, then per photo its name, K, R (row by row) and t, with P = K [R t];
    the origin is the top-left pixel. The bounding box of the README is the region that is judged; the surface
    itself is not public.

    Raises:
        ReconError: something cannot be read.
    """
    path = sorted(folder.glob("*_par.txt"))[0]
    images = folder / "images" if image_files(folder / "images") else folder
    by_stem = {photo.stem: photo for photo in image_files(images)}
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    count = int(numbers(lines[0], path, 1)[0]) if lines else 0
    if count != len(lines) - 1:
        raise ReconError(f"{path}: promises {count} cameras and holds {max(len(lines) - 1, 0)}")
    cameras = {}
    for line in lines[1:]:
        name, _, rest = line.strip().partition(" ")
        values = numbers(rest, path, 21)
        photo = images / name if (images / name).is_file() else by_stem.get(Path(name).stem)
        if photo is None:
            raise ReconError(f"{path}: its photo {name} is not in {images}")
        R = rotation(values[9:18].reshape(3, 3), path)
        cameras[photo.name] = true_camera(*image_size(photo), values[:9].reshape(3, 3), R, values[18:21])
    return GroundTruth(
        folder.name,
        images,
        cameras,
        1.0,
        STEREO.name,
        region=readme_box(folder),
        note="the true surface is not public",
    )


def readme_box(folder: Path) -> Callable[[Float[np.ndarray, "n 3"]], Bool[np.ndarray, " n"]] | None:
    """The bounding box of the README: two points in brackets, after the words "bounding box"."""
    for path in sorted(folder.glob("*README*")) + sorted(folder.glob("*readme*")):
        _, found, after = read_text(path).partition("bounding box")
        match = _BOX.search(after) if found else None
        if match:
            corners = numbers(" ".join(match.groups()), path, 6).reshape(2, 3)
            low, high = corners.min(axis=0), corners.max(axis=0)

            def inside(
                points: Float[np.ndarray, "n 3"], low: np.ndarray = low, high: np.ndarray = high
            ) -> Bool[np.ndarray, " n"]:
                return np.asarray(((points >= low) & (points <= high)).all(axis=1))

            return inside
    return None


# ---- flow ----------------------------------------------------------------------------------------


def knows_flow(folder: Path) -> bool:
    """Tell whether a folder has a true flow of frame 10, or is KITTI's ``training`` folder."""
    return bool(_middlebury_flows(folder)) or bool(_kitti_flows(folder))


def read_flow(folder: Path) -> GroundTruth:
    """Read the flow of one scene, of all scenes in a folder (``other-data`` and ``other-gt-flow`` too), or of
    KITTI's ``training``.

    Photo names are paths below ``images``; flow is from ``frame10`` to ``frame11`` (KITTI: ``_10`` to ``_11``).

    Raises:
        ReconError: nothing is there.
    """
    flows = _middlebury_flows(folder)
    images = folder / "other-data" if (folder / "other-data").is_dir() else folder
    if not flows:
        flows = _kitti_flows(folder)
        images = next((folder / n for n in ("image_2", "colored_0") if (folder / n).is_dir()), folder)
    if not flows:
        raise ReconError(f"{folder}: has no true flow")

    def flow(a: str, b: str) -> Float32[np.ndarray, "h w 2"] | None:
        return read_true_flow(flows[(a, b)]) if (a, b) in flows else None

    return GroundTruth(folder.name, images, {}, layout=FLOW.name, flow=flow, flow_pairs=tuple(flows))


def _middlebury_flows(folder: Path) -> dict[tuple[str, str], Path]:
    if not folder.is_dir():
        return {}
    truth = folder / "other-gt-flow" if (folder / "other-gt-flow").is_dir() else folder
    images = folder / "other-data" if (folder / "other-data").is_dir() else folder
    found = {}
    for path in sorted(truth.glob("flow10.flo")) + sorted(truth.glob("*/flow10.flo")):
        scene = path.parent.relative_to(truth)
        frames = [
            next(
                (
                    scene / f"frame{n}{s}"
                    for s in IMAGE_SUFFIXES
                    if (images / scene / f"frame{n}{s}").is_file()
                ),
                None,
            )
            for n in (10, 11)
        ]
        if frames[0] is not None and frames[1] is not None:
            found[(frames[0].as_posix(), frames[1].as_posix())] = path
    return found


def _kitti_flows(folder: Path) -> dict[tuple[str, str], Path]:
    truth = next((folder / n for n in ("flow_occ", "flow_noc") if (folder / n).is_dir()), None)
    if truth is None:
        return {}
    return {
        (path.name, path.name.replace("_10.png", "_11.png")): path for path in sorted(truth.glob("*_10.png"))
    }


STEREO = Reader("middlebury-mvs", "a file *_par.txt", knows_stereo, read_stereo)
FLOW = Reader("flow", "frame10, frame11 and flow10.flo, or KITTI's flow_occ", knows_flow, read_flow)
