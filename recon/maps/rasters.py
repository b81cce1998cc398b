"""GeoTIFFs of a map, tile by tile: what writes and reads them, and PNGs with world files."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from recon.errors import ReconError
from recon.maps.frame import MapFrame
from recon.maps.grid import MapGrid, Tile

# Bytes that GDAL may keep of the files it reads and writes; its own default is a part of the machine's memory.
_CACHE_MB = 48
_BLOCK = 256

NODATA = -9999.0
"""Height where a surface model has none."""


def gdal() -> Any:
    """The rasterio module.

    Raises:
        ReconError: it is not installed.
    """
    try:
        import rasterio
    except ImportError as error:
        raise ReconError(
            "maps need rasterio, which writes GeoTIFFs: pip install 'recon-photogrammetry[maps]'"
        ) from error
    return rasterio


@contextlib.contextmanager
def small_cache() -> Iterator[None]:
    """Bound what GDAL keeps in memory, so that it does not grow with the map."""
    with gdal().Env(GDAL_CACHEMAX=_CACHE_MB):
        yield


@contextlib.contextmanager
def writing(path: Path, grid: MapGrid, frame: MapFrame, kind: str, **tags: str) -> Iterator[Any]:
    """A tiled, compressed GeoTIFF that is in its place, with overviews, when the block ends well.

    Args:
        kind: "heights" (float32, ``NODATA``), "colours" (RGB and alpha) or "photos" (uint16, 0 for none).

    Raises:
        ReconError: it cannot be written.
    """
    rasterio = gdal()
    from rasterio.enums import ColorInterp, Resampling

    count, dtype = {"heights": (1, "float32"), "colours": (4, "uint8"), "photos": (1, "uint16")}[kind]
    options: dict[str, dict[str, Any]] = {
        "heights": {"nodata": NODATA, "predictor": 3},
        "colours": {"photometric": "RGB", "predictor": 2},
        "photos": {"nodata": 0},
    }
    partial = path.with_name(f".{path.stem}.part.tif")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.open(
            partial, "w", driver="GTiff", width=grid.columns, height=grid.rows, count=count, dtype=dtype,
            crs=_crs(frame), transform=_transform(grid, frame), tiled=True, blockxsize=_BLOCK, blockysize=_BLOCK,
            compress="deflate", BIGTIFF="IF_SAFER", **options[kind],
        ) as raster:  # fmt: skip
            raster.update_tags(AREA_OR_POINT="Area", **tags)
            if kind == "colours":
                raster.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
            yield raster
        levels = [2**k for k in range(1, 12) if max(grid.columns, grid.rows) >= _BLOCK * 2**k]
        if levels:
            how = {"photos": Resampling.nearest}.get(kind, Resampling.average)
            with rasterio.open(partial, "r+") as raster:
                raster.build_overviews(levels, how)
        partial.replace(path)
    except rasterio.errors.RasterioError as error:
        raise ReconError(f"{path}: cannot be written ({error})") from error
    finally:
        partial.unlink(missing_ok=True)


def write_tile(raster: Any, values: np.ndarray, tile: Tile) -> None:
    """Write a tile: (rows, columns), or (rows, columns, bands)."""
    from rasterio.windows import Window

    window = Window(tile.column, tile.row, tile.columns, tile.rows)
    if values.ndim == 2:
        raster.write(values, 1, window=window)
    else:
        raster.write(np.ascontiguousarray(np.moveaxis(values, -1, 0)), window=window)


def read_heights(raster: Any, tile: Tile | None = None) -> np.ndarray:
    """Heights of a tile, or of all, NaN where there are none."""
    from rasterio.windows import Window

    window = None if tile is None else Window(tile.column, tile.row, tile.columns, tile.rows)
    values = raster.read(1, window=window)
    return np.where(values == NODATA, np.float32(np.nan), values)


def grid_of(raster: Any) -> MapGrid:
    """Grid of a GeoTIFF's cells, in the coordinates of the file."""
    t = raster.transform
    return MapGrid(t.c, t.f, t.a, raster.width, raster.height)


def write_png(source: Path, target: Path) -> None:
    """A PNG of a GeoTIFF with a world file (.pgw) beside it."""
    rasterio = gdal()
    from rasterio.shutil import copy

    partial = target.with_name(f".{target.stem}.part.png")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            copy(source, partial, driver="PNG")
        partial.replace(target)
        with rasterio.open(source) as raster:
            t = raster.transform
        x, y = t.c + 0.5 * t.a, t.f + 0.5 * t.e  # a world file names the middle of the first cell
        text = "\n".join(f"{value:.12g}" for value in (t.a, t.d, t.b, t.e, x, y))
        target.with_suffix(".pgw").write_text(text + "\n", encoding="ascii")
    except (OSError, rasterio.errors.RasterioError) as error:
        raise ReconError(f"{target}: cannot be written ({error}); --no-png leaves it out") from error
    finally:
        partial.unlink(missing_ok=True)
        partial.with_name(partial.name + ".aux.xml").unlink(missing_ok=True)


def _transform(grid: MapGrid, frame: MapFrame) -> Any:
    from rasterio.transform import from_origin

    return from_origin(frame.offset[0] + grid.west, frame.offset[1] + grid.north, grid.gsd, grid.gsd)


def _crs(frame: MapFrame) -> Any:
    from rasterio.crs import CRS

    if frame.epsg is not None:
        return CRS.from_epsg(frame.epsg)
    unit = 'UNIT["metre",1]' if frame.unit == "m" else 'UNIT["unit of the run",1]'
    return CRS.from_wkt(f'LOCAL_CS["{frame.name}",{unit},AXIS["x",EAST],AXIS["y",NORTH]]')
