"""The project's own file of posed pinhole cameras, ``cameras.json`` (docs/conventions.md)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from recon.core.cameras import PinholeView
from recon.errors import ReconError
from recon.io.files import parse_json

CONVENTION = (
    "Pinhole, no distortion. World-to-camera: x_cam = R @ X_world + t (R 3x3 row-major, det +1). Camera "
    "axes: +x right, +y down, +z forward. Pixel: u = fx*x/z + cx, v = fy*y/z + cy, with OpenCV pixel "
    "coordinates (integer = pixel CENTRE, top-left pixel centre is (0,0)). For COLMAP (top-left corner "
    "origin) add 0.5 to cx, cy. Camera centre C = -R^T t. Depth maps are z-depth along the optical axis in "
    "world units."
)


def camera_entry(
    name: str,
    K: Float[np.ndarray, "3 3"],
    size: tuple[int, int],
    cam_from_world: Float[np.ndarray, "3 4"] | None = None,
) -> dict[str, Any]:
    """One camera as JSON values.

    Args:
        name: of the photo. size: (width, height). cam_from_world: None leaves the pose out.
    """
    entry: dict[str, Any] = {
        "name": name,
        "width": size[0],
        "height": size[1],
        "fx": float(K[0, 0]),
        "fy": float(K[1, 1]),
        "cx": float(K[0, 2]),
        "cy": float(K[1, 2]),
    }
    if cam_from_world is not None:
        entry |= {"R": cam_from_world[:, :3].tolist(), "t": cam_from_world[:, 3].tolist()}
    return entry


def pinhole_of_entry(entry: Mapping[str, Any]) -> tuple[Float64[np.ndarray, "3 3"], int, int]:
    """Calibration matrix, width and height of a camera.

    Raises:
        KeyError, TypeError, ValueError: something is missing, or no number.
    """
    fx, fy, cx, cy = (float(entry[key]) for key in ("fx", "fy", "cx", "cy"))
    K = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    return K, int(entry["width"]), int(entry["height"])


def read_cameras_json(path: Path) -> dict[str, PinholeView]:
    """Read posed cameras, by photo name.

    Raises:
        ReconError: the file is missing or is not such a file.
    """
    out = {}
    try:
        for index, entry in enumerate(parse_json(Path(path).read_text(encoding="utf-8"))["images"]):
            K, width, height = pinhole_of_entry(entry)
            R, t = np.array(entry["R"], np.float64).reshape(3, 3), np.array(entry["t"], np.float64)
            out[entry["name"]] = PinholeView(index, entry["name"], K, np.column_stack([R, t]), width, height)
    except FileNotFoundError as error:
        raise ReconError(f"{path}: no such file; name a cameras.json with posed cameras") from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise ReconError(
            f"{path}: not a cameras.json: each image needs name, width, height, fx, fy, cx, cy, R and "
            f"t ({error!r})"
        ) from error
    return out


def poses_from_cameras_json(path: Path) -> dict[str, Float64[np.ndarray, "3 4"]]:
    """Read name to ``cam_from_world``.

    Raises:
        ReconError: the file is missing or is not such a file.
    """
    return {name: view.cam_from_world for name, view in read_cameras_json(path).items()}
