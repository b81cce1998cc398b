"""Volume between a surface model and a base over a polygon, with what it may be off by."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, Float64

from recon.errors import ReconError, UsageError
from recon.exports.georeference import Georeference
from recon.exports.precision import read_precision
from recon.exports.source import read_georeference
from recon.io.files import parse_json
from recon.maps.contours import dsm_of
from recon.maps.grid import Tile
from recon.maps.options import VolumeOptions
from recon.maps.rasters import gdal, grid_of, read_heights, small_cache
from recon.run.folder import GEOREFERENCE, PRECISION, RunFolder

# Each cell on the polygon's edge counts by how much of so many points a side lie inside.
_FINER = 5
# Neighbouring heights err together over about so many cells (windows of matching, smoothing of the flow), and by this
# part of a cell at least, however smooth they look: on rendered land, volumes then err as is stated.
CORRELATED_CELLS = 15.0
LEAST_NOISE_CELLS = 0.1
# A polygon with more than this part of its cells unknown has no volume that means something.
_MOST_UNKNOWN = 0.2


@dataclass(frozen=True)
class Volume:
    """Volume over a polygon, in the cube of the map's unit.

    Attributes:
        above, below: between surface and base, where the surface is higher, and lower.
        sigma: standard deviation of ``above - below``.
        area: of the polygon. unknown: part of it without heights, taken from the cells about it.
        base: height of the base in the polygon's middle. noise: of one height.
    """

    above: float
    below: float
    sigma: float
    area: float
    unknown: float
    base: float
    noise: float

    @property
    def net(self) -> float:
        """Volume above less volume missing below."""
        return self.above - self.below


def volume_over(
    heights: Float32[np.ndarray, "h w"],
    share: Float32[np.ndarray, "h w"],
    boundary: Float64[np.ndarray, "k 2"],
    gsd: float,
    *,
    level: float | None = None,
    scale_sigma: float = 0.0,
    level_sigma: float = 0.0,
) -> Volume:
    """Sum the heights over a base, cell by cell, and propagate the errors of heights, base and scale.

    Args:
        heights: NaN where unknown. share: of each cell, the part inside the polygon.
        boundary: (column, row) of points along the polygon, 0 in the middle of the first cell.
        level: height of a level base; None fits a plane to the surface along the boundary, robustly.
        scale_sigma: relative standard deviation of lengths. level_sigma: of all heights together against ``level``.

    Raises:
        ValueError: too little of it is known.
    """
    inside = share > 0
    known = np.isfinite(heights)
    area = float(share.sum()) * gsd**2
    unknown = 1.0 - float(share[known].sum()) / max(float(share.sum()), 1e-30)
    if not inside.any() or unknown > _MOST_UNKNOWN:
        raise ValueError(
            f"{100 * unknown:.0f}% of the polygon has no heights" if inside.any() else "it is empty"
        )
    filled = _filled(heights, inside & ~known)
    noise = max(_noise(filled, inside & known), LEAST_NOISE_CELLS * gsd)
    rows, columns = np.nonzero(inside)
    middle = np.average(np.column_stack([columns, rows]), axis=0, weights=share[inside])
    cells = np.column_stack([columns, rows]) - middle
    weight = share[inside].astype(np.float64)
    if level is None:
        at, sigma_b, plane = _plane(filled, boundary - middle, boundary, noise)
        design = np.column_stack([np.ones(len(cells)), cells])
        base = design @ plane
        lever = gsd**2 * (design * weight[:, None]).sum(axis=0)
        base_sigma = math.sqrt(float(lever @ sigma_b @ lever))
        shown = float(at)
    else:
        base, base_sigma, shown = np.full(len(cells), level), level_sigma * area, level
    over = filled[inside].astype(np.float64) - base
    above = gsd**2 * float((weight * np.maximum(over, 0)).sum())
    below = gsd**2 * float((weight * np.maximum(-over, 0)).sum())
    # Heights that err together over a patch: as many errors as patches.
    of_heights = noise * gsd**2 * CORRELATED_CELLS * math.sqrt(float((weight**2).sum()))
    of_scale = 3 * scale_sigma * abs(above - below)
    sigma = math.sqrt(of_heights**2 + base_sigma**2 + of_scale**2)
    return Volume(above, below, sigma, area, unknown, shown, noise)


def _filled(heights: Float32[np.ndarray, "h w"], holes: np.ndarray) -> Float32[np.ndarray, "h w"]:
    """Heights with holes closed from their rims, by the mean of what is known about them."""
    out, missing = heights.copy(), holes & ~np.isfinite(heights)
    for _ in range(max(heights.shape)):
        if not missing.any():
            break
        known = np.isfinite(out)
        number = cv2.blur(known.astype(np.float32), (3, 3))
        total = cv2.blur(np.where(known, out, 0).astype(np.float32), (3, 3))
        grown = missing & (number > 0)
        if not grown.any():
            break
        out[grown] = (total / np.maximum(number, 1e-9))[grown]
        missing &= ~grown
    return out


def _noise(heights: Float32[np.ndarray, "h w"], inside: np.ndarray) -> float:
    """Standard deviation of a height: what a median over a few neighbours takes away."""
    whole = np.where(np.isfinite(heights), heights, float(np.nanmedian(heights))).astype(np.float32)
    lifted = whole - float(np.median(whole))
    rest = (lifted - cv2.medianBlur(lifted, 5))[inside]
    return 1.4826 * float(np.median(np.abs(rest))) + 1e-9


def _plane(
    heights: Float32[np.ndarray, "h w"],
    at: Float64[np.ndarray, "k 2"],
    boundary: Float64[np.ndarray, "k 2"],
    noise: float,
) -> tuple[float, Float64[np.ndarray, "3 3"], Float64[np.ndarray, "3"]]:
    """Plane through the surface along the boundary: its height in the middle, covariance, and coefficients."""
    x, y = np.rint(boundary).astype(int).T
    x, y = x.clip(0, heights.shape[1] - 1), y.clip(0, heights.shape[0] - 1)
    z = heights[y, x].astype(np.float64)
    fine = np.isfinite(z)
    if fine.sum() < 8:
        raise ValueError("the surface along its boundary is not known; give --base HEIGHT")
    design, z = np.column_stack([np.ones(len(at)), at])[fine], z[fine]
    weight = np.ones(len(z))
    for _ in range(20):  # Huber's weights, so that a bush on the boundary does not tilt the base
        A = design * weight[:, None]
        plane = np.linalg.solve(A.T @ design, A.T @ z)
        rest = np.abs(z - design @ plane)
        spread = max(1.4826 * float(np.median(rest)), noise)
        weight = np.minimum(1.0, 1.5 * spread / np.maximum(rest, 1e-12))
    # Points along the boundary are a cell apart and err together.
    covariance = spread**2 * CORRELATED_CELLS * np.linalg.inv((design * weight[:, None]).T @ design)
    return float(plane[0]), covariance, plane


# Polygons of files


def read_polygons(path: Path, epsg: int | None) -> list[tuple[str, list[Float64[np.ndarray, "k 2"]]]]:
    """Polygons of a GeoJSON file in coordinates of the map: name and rings (the first one outside).

    Raises:
        UsageError: it cannot be read, or holds no polygon.
    """
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
        features = data["features"] if data.get("type") == "FeatureCollection" else [data]
        found = []
        for number, feature in enumerate(features, 1):
            geometry = feature.get("geometry", feature)
            name = str((feature.get("properties") or {}).get("name", number))
            if geometry.get("type") in ("Polygon", "MultiPolygon"):
                many = (
                    geometry["coordinates"]
                    if geometry["type"] == "MultiPolygon"
                    else [geometry["coordinates"]]
                )
                for rings in many:
                    found.append((name, [np.array(ring, np.float64)[:, :2] for ring in rings]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UsageError(f"{path}: is no GeoJSON with polygons ({error})") from error
    if not found or any(len(ring) < 4 for _, rings in found for ring in rings):
        raise UsageError(f"{path}: holds no polygon with three corners or more")
    if (
        epsg is not None
        and "crs" not in data
        and max(np.abs(r).max() for _, rings in found for r in rings) <= 180
    ):
        from rasterio.warp import transform

        def moved(ring: np.ndarray) -> np.ndarray:
            x, y = transform("EPSG:4326", f"EPSG:{epsg}", ring[:, 0].tolist(), ring[:, 1].tolist())
            return np.column_stack([x, y])

        found = [(name, [moved(ring) for ring in rings]) for name, rings in found]
    return found


def run_volume(run: RunFolder, maps: Path, options: VolumeOptions) -> list[str]:
    """Volumes over the polygons of a file, one line each.

    Raises:
        ReconError: there is no surface model, or a polygon lies outside of it. UsageError: no polygon, or no base.
    """
    rasterio = gdal()
    if options.polygon is None:
        raise UsageError("--polygon FILE: a GeoJSON with the polygons, in the map's coordinates")
    try:
        level = None if options.base == "boundary" else float(options.base)
    except ValueError:
        raise UsageError(f"--base {options.base}: it is boundary, or a height") from None
    lines = []
    with small_cache(), rasterio.open(dsm_of(run, maps)) as raster:
        epsg = raster.crs.to_epsg() if raster.crs is not None else None
        scale_sigma, level_sigma = _known(run)
        for name, rings in read_polygons(options.polygon, epsg):
            heights, share, boundary, gsd = _cut(raster, rings, options.polygon, name)
            try:
                found = volume_over(
                    heights,
                    share,
                    boundary,
                    gsd,
                    level=level,
                    scale_sigma=scale_sigma,
                    level_sigma=level_sigma,
                )
            except ValueError as error:
                raise ReconError(f"{options.polygon}: {name}: {error}") from error
            closed = f"; {100 * found.unknown:.1f}% without heights, closed from about"
            lines.append(
                f"{name}: {found.net:.4g} m³ ± {found.sigma:.2g} m³ ({found.above:.4g} above, {found.below:.4g} below "
                f"a base at {found.base:.3f}), area {found.area:.4g} m²{closed if found.unknown > 0.001 else ''}"
            )
    return lines


def _known(run: RunFolder) -> tuple[float, float]:
    """Relative deviation of lengths, and that of all heights together, by the georeference."""
    if not run.path(GEOREFERENCE).is_file():
        return 0.0, 0.0
    georeference: Georeference = read_georeference(run)
    kept = read_precision(run.path(PRECISION))
    if kept is None:
        return georeference.scale_error or 0.0, 0.0
    sigma = np.sqrt(np.einsum("nii->ni", kept.precision.centres()))
    centre = kept.precision.model.centre
    extent = float(np.sqrt(((centre - centre.mean(axis=0)) ** 2).sum()))
    scale = float(np.linalg.norm(np.median(sigma[:, :2], axis=0))) / max(extent, 1e-9)
    return scale, float(np.median(sigma[:, 2]))


def _cut(
    raster: Any, rings: list[np.ndarray], path: Path, name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Heights about a polygon, how much of each cell lies inside, and points along its outer boundary."""
    from rasterio.features import rasterize

    grid = grid_of(raster)
    cells = [np.column_stack([(r[:, 0] - grid.west), (grid.north - r[:, 1])]) / grid.gsd - 0.5 for r in rings]
    low, high = np.floor(cells[0].min(axis=0)).astype(int) - 3, np.ceil(cells[0].max(axis=0)).astype(int) + 4
    left, top = max(int(low[0]), 0), max(int(low[1]), 0)
    right, bottom = min(int(high[0]), grid.columns), min(int(high[1]), grid.rows)
    if right - left < 2 or bottom - top < 2:
        raise ReconError(f"{path}: {name} lies outside of the map")
    tile = Tile(left, top, right - left, bottom - top)
    inner = [ring - [left, top] for ring in cells]
    # In cells whose corner is the origin, as rasterize wants them.
    shape = {"type": "Polygon", "coordinates": [((ring + 0.5) * _FINER).tolist() for ring in inner]}
    fine = rasterize([(shape, 1)], out_shape=(tile.rows * _FINER, tile.columns * _FINER), dtype="uint8")
    share = fine.reshape(tile.rows, _FINER, tile.columns, _FINER).mean(axis=(1, 3), dtype=np.float32)
    outside = cells[0].min(axis=0) < -0.5 - 1e-6
    outside |= cells[0].max(axis=0) > np.array([grid.columns, grid.rows]) - 0.5 + 1e-6
    if outside.any():
        raise ReconError(f"{path}: {name} reaches beyond the map")
    return read_heights(raster, tile), share, _along(inner[0]), grid.gsd


def _along(ring: Float64[np.ndarray, "k 2"]) -> Float64[np.ndarray, "n 2"]:
    """Points along a ring, a cell apart."""
    parts = []
    for a, b in itertools.pairwise(ring):
        steps = max(1, math.ceil(float(np.linalg.norm(b - a))))
        parts.append(a + (b - a) * (np.arange(steps) / steps)[:, None])
    return np.concatenate(parts)
