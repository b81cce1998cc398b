"""Contour lines of a surface model, as GeoJSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, Float64

from recon.errors import ReconError, UsageError
from recon.exports.options import ExportReport
from recon.maps.grid import MapGrid
from recon.maps.options import ContourOptions
from recon.maps.rasters import gdal, grid_of, read_heights, small_cache
from recon.run.folder import RunFolder

# Cells along a side of what is drawn at once.
_BLOCK = 2048
# Lines of a map at most; more are a wrong interval.
_MOST_LEVELS = 5000


def contour_lines(
    heights: Float32[np.ndarray, "h w"], levels: Float64[np.ndarray, " n"]
) -> list[tuple[float, list[Float64[np.ndarray, "k 2"]]]]:
    """Lines of equal height between the middles of cells: (column, row) of their points, none where heights are NaN."""
    import contourpy

    generator = contourpy.contour_generator(
        z=np.ma.masked_invalid(heights), line_type=contourpy.LineType.Separate
    )
    return [(float(level), list(generator.lines(float(level)))) for level in levels]


def smoothed(heights: Float32[np.ndarray, "h w"], cells: float) -> Float32[np.ndarray, "h w"]:
    """Heights averaged over neighbours that are known, by a Gaussian; unknown ones stay unknown."""
    if cells <= 0:
        return heights
    known = np.isfinite(heights)
    weight = cv2.GaussianBlur(known.astype(np.float32), (0, 0), cells)
    total = cv2.GaussianBlur(np.where(known, heights, 0).astype(np.float32), (0, 0), cells)
    return np.where(known, total / np.maximum(weight, 1e-6), np.nan).astype(np.float32)


def dsm_of(run: RunFolder, maps: Path) -> Path:
    """The surface model of a run.

    Raises:
        ReconError: it is not made yet.
    """
    path = maps / "dsm.tif"
    if not path.is_file():
        raise ReconError(f"{path}: there is no surface model yet; run 'recon ortho {run.root}' first")
    return path


def run_contours(run: RunFolder, maps: Path, out: Path, options: ContourOptions) -> ExportReport:
    """Write contour lines of the surface model as GeoJSON in the coordinates of the map.

    Raises:
        ReconError: there is no surface model, or the file cannot be written. UsageError: an interval that is too small.
    """
    rasterio = gdal()
    features: list[dict[str, Any]] = []
    with small_cache(), rasterio.open(dsm_of(run, maps)) as raster:
        grid = grid_of(raster)
        low, high = _range(raster, grid)
        interval = options.interval or _nice((high - low) / 12)
        if (high - low) / interval > _MOST_LEVELS:
            raise UsageError(
                f"--interval {interval:g}: {high - low:.4g} of height has too many; give a larger one"
            )
        shortest = options.shortest * grid.gsd
        margin = math.ceil(3 * options.smooth) + 1
        for tile in grid.tiles(_BLOCK):
            wide = tile.grown(margin, grid)
            # One cell more than the tile, so that lines of neighbours meet.
            inner = tile.grown(1, grid)
            heights = smoothed(read_heights(raster, wide), options.smooth)
            row, column = tile.row - wide.row, tile.column - wide.column
            rows = min(inner.row + inner.rows, tile.row + tile.rows + 1) - tile.row
            columns = min(inner.column + inner.columns, tile.column + tile.columns + 1) - tile.column
            part = heights[row : row + rows, column : column + columns]
            if min(part.shape) < 2 or not np.isfinite(part).any():
                continue
            first = math.ceil(float(np.nanmin(part)) / interval)
            last = math.floor(float(np.nanmax(part)) / interval)
            for level, lines in contour_lines(part, interval * np.arange(first, last + 1)):
                for line in lines:
                    x = grid.west + (tile.column + line[:, 0] + 0.5) * grid.gsd
                    y = grid.north - (tile.row + line[:, 1] + 0.5) * grid.gsd
                    if float(np.hypot(np.diff(x), np.diff(y)).sum()) >= shortest:
                        features.append(_feature(level, x, y, 2 if grid.gsd > 0.1 else 3))
        epsg = raster.crs.to_epsg() if raster.crs is not None else None
    write_geojson(out, features, epsg)
    return ExportReport(f"{len(features)} lines every {interval:g}, {low:.4g} to {high:.4g}", (out,))


def write_geojson(path: Path, features: list[dict[str, Any]], epsg: int | None) -> None:
    """Write features in coordinates of a reference system (named as GeoJSON of 2008 does, which GDAL and QGIS read)."""
    data: dict[str, Any] = {"type": "FeatureCollection"}
    if epsg is not None:
        data["crs"] = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{epsg}"}}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data | {"features": features}), encoding="utf-8")
    except OSError as error:
        raise ReconError(f"{path}: cannot be written ({error.strerror})") from error


def _feature(level: float, x: np.ndarray, y: np.ndarray, digits: int) -> dict[str, Any]:
    points = [[round(float(a), digits), round(float(b), digits)] for a, b in zip(x, y, strict=True)]
    height = round(level, 6)
    return {
        "type": "Feature",
        "properties": {"height": height},
        "geometry": {"type": "LineString", "coordinates": points},
    }


def _range(raster: Any, grid: MapGrid) -> tuple[float, float]:
    found = [read_heights(raster, tile) for tile in grid.tiles(_BLOCK)]
    known = [part[np.isfinite(part)] for part in found]
    ends = [(float(part.min()), float(part.max())) for part in known if len(part)]
    if not ends:
        raise ReconError(f"{raster.name}: holds no heights")
    return min(a for a, _ in ends), max(b for _, b in ends)


def _nice(value: float) -> float:
    """The next larger of 1, 2 and 5 times a power of ten."""
    unit = 10.0 ** math.floor(math.log10(max(value, 1e-9)))
    return float(next(unit * k for k in (1, 2, 5, 10) if unit * k >= value - 1e-12))
