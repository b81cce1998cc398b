"""Colours of points and faces by what they tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float64, UInt8

from recon.core.mesh import PointCloud

PHOTO, HEIGHT, NORMAL, CONFIDENCE, VIEWS, ERROR, SHAPE = (
    "photo",
    "height",
    "normal",
    "confidence",
    "number of views",
    "error against the truth",
    "shape",
)

_PLAIN = (176, 182, 190)
_MAPS = {
    HEIGHT: cv2.COLORMAP_VIRIDIS,
    CONFIDENCE: cv2.COLORMAP_PLASMA,
    VIEWS: cv2.COLORMAP_PLASMA,
    ERROR: cv2.COLORMAP_TURBO,
}


@dataclass(frozen=True, eq=False)
class Ranges:
    """Values at the ends of the colour maps, and the up direction.

    Attributes:
        up: unit vector; the height of a point is its part along it.
        height, views, error: lowest and highest value.
    """

    up: Float64[np.ndarray, "3"]
    height: tuple[float, float]
    views: tuple[float, float] = (2.0, 8.0)
    error: tuple[float, float] = (0.0, 1.0)

    def of(self, mode: str) -> tuple[float, float]:
        """Ends of a mode's colour map."""
        return {HEIGHT: self.height, VIEWS: self.views, ERROR: self.error}.get(mode, (0.0, 1.0))


def ranges_of(
    xyz: Float[np.ndarray, "n 3"], up: Float64[np.ndarray, "3"], cloud: PointCloud | None
) -> Ranges:
    """Ends that leave out the outermost 1% of a scene's points."""
    heights = xyz @ up if len(xyz) else np.zeros(1)
    low, high = np.percentile(heights, [1, 99])
    views = (2.0, 8.0)
    if cloud is not None and cloud.view_count is not None and len(cloud):
        some = cloud.view_count[:: max(1, len(cloud) // 100_000)]
        views = (float(some.min()), float(max(np.percentile(some, 99), some.min() + 1)))
    return Ranges(up, (float(low), float(max(high, low + 1e-9))), views)


def modes_of(cloud: PointCloud | None, has_truth: bool, has_mesh: bool) -> list[str]:
    """List what the colours can tell of a scene."""
    modes = [PHOTO, HEIGHT]
    if has_mesh:
        modes.append(SHAPE)
    if has_mesh or (cloud is not None and cloud.normals is not None):
        modes.append(NORMAL)
    if cloud is not None and cloud.confidence is not None:
        modes.append(CONFIDENCE)
    if cloud is not None and cloud.view_count is not None:
        modes.append(VIEWS)
    if has_truth:
        modes.append(ERROR)
    return modes


def color_map(
    values: Float[np.ndarray, " n"], ends: tuple[float, float], mode: str
) -> UInt8[np.ndarray, "n 3"]:
    """Colours of numbers; what is no number is grey."""
    unit = (np.asarray(values, np.float32) - ends[0]) / max(ends[1] - ends[0], 1e-12)
    known = np.isfinite(unit)
    index = np.rint(np.clip(np.where(known, unit, 0.0), 0, 1) * 255).astype(np.uint8)
    out = color_table(mode)[index]
    out[~known] = _PLAIN
    return out


def color_table(mode: str) -> UInt8[np.ndarray, "256 3"]:
    """The 256 colours of a mode's map, lowest first."""
    ramp = np.arange(256, dtype=np.uint8)[:, None]
    return np.ascontiguousarray(cv2.applyColorMap(ramp, _MAPS[mode])[:, 0, ::-1])


def normal_colors(normals: Float[np.ndarray, "n 3"]) -> UInt8[np.ndarray, "n 3"]:
    """x, y and z of unit vectors as red, green and blue; zero is grey."""
    return np.rint((np.asarray(normals, np.float32) + 1) * 127.5).astype(np.uint8)


def cloud_colors(
    cloud: PointCloud, mode: str, ranges: Ranges, errors: Callable[[np.ndarray], np.ndarray] | None = None
) -> UInt8[np.ndarray, "n 3"]:
    """Colours of points; where a cloud does not hold what the mode tells, its own, or by height without those.

    Args:
        errors: distance from the truth of points.
    """
    if mode == NORMAL and cloud.normals is not None:
        return normal_colors(cloud.normals)
    if mode == CONFIDENCE and cloud.confidence is not None:
        return color_map(cloud.confidence, (0.0, 1.0), mode)
    if mode == VIEWS and cloud.view_count is not None:
        return color_map(cloud.view_count.astype(np.float32), ranges.views, mode)
    if mode == ERROR and errors is not None:
        return color_map(errors(cloud.xyz), ranges.error, mode)
    if mode == SHAPE:
        return np.full((len(cloud), 3), _PLAIN, np.uint8)
    if mode == HEIGHT or cloud.rgb is None:
        return color_map(cloud.xyz @ ranges.up.astype(np.float32), ranges.height, HEIGHT)
    return cloud.rgb


def legend(mode: str, ends: tuple[float, float], unit: str) -> str:
    """The colour map of a mode as a strip of HTML with its ends; nothing where colours are no numbers."""
    if mode == NORMAL:
        return _caption("red, green, blue: x, y, z of the normals")
    if mode not in _MAPS:
        return ""
    table = color_table(mode)[:: 255 // 8]
    stops = ", ".join(f"rgb({r},{g},{b})" for r, g, b in table.tolist())
    low, high = (f"{end:.4g}" for end in ends)
    strip = f'<div style="height:10px;border-radius:3px;background:linear-gradient(to right,{stops})"></div>'
    row = f'<div style="display:flex;justify-content:space-between"><span>{low}</span><span>{high} {unit}</span></div>'
    return _caption(strip + row)


def _caption(inner: str) -> str:
    return f'<div style="padding:2px 14px 6px;font-size:12px">{inner}</div>'
