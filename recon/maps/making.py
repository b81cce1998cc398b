"""The work of ``recon ortho``: the surface model first, tile by tile, then the orthophoto over it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int16

from recon.core.frames import translation
from recon.core.raycasting import cast, ray_scene
from recon.errors import ReconError, UsageError
from recon.exports.files import write_json
from recon.exports.georeferencing import level_georeference
from recon.exports.options import ExportReport
from recon.exports.scene import Scene
from recon.exports.source import load_scene, read_georeference
from recon.maps.frame import MapFrame, map_frame
from recon.maps.grid import MapGrid, Tile
from recon.maps.heights import AGREES_CELLS, agreed_heights, heights_of_depth
from recon.maps.options import SURFACES, OrthoOptions
from recon.maps.ortho import BLENDED, better_views, blend, quality, sees
from recon.maps.rasters import NODATA, gdal, read_heights, small_cache, write_png, write_tile, writing
from recon.maps.source import MapSource, MapView, tensor_rays
from recon.run.folder import GEOREFERENCE, RunFolder
from recon.surface.texture.color import fit_gains
from recon.surface.texture.visibility import Candidates

DSM, ORTHO, PHOTOS_OF_CELLS, FACTS = "dsm.tif", "ortho.tif", "photos.tif", "maps.json"

_MOST_CELLS = 4_000_000_000
# Cells that tell how the exposures of the photos differ.
_EXPOSURE_CELLS = 6000
# What stands at most so many cells from a tile may hide it.
_MOST_MARGIN = 1024


@dataclass(frozen=True)
class Plan:
    """Plan of a map: the source, the grid, the heights that there are, and the way heights are found."""

    source: MapSource
    grid: MapGrid
    low: float
    high: float
    surface: str
    tile: int

    @property
    def margin(self) -> int:
        """Cells about a tile that may hide it: the relief seen at 45 degrees."""
        return int(np.clip((self.high - self.low) / self.grid.gsd, 16, _MOST_MARGIN))

    @property
    def tiles(self) -> list[Tile]:
        """All tiles."""
        return list(self.grid.tiles(self.tile))


def run_ortho(run: RunFolder, target: Path, options: OrthoOptions) -> ExportReport:
    """Make ``dsm.tif``, ``ortho.tif``, ``photos.tif`` (which photo each cell shows) and the PNG in a folder.

    Raises:
        ReconError: the run lacks what is needed. UsageError: options that make no sense.
    """
    gdal()
    scene = load_scene(run)
    frame, notes = find_frame(run, scene, options.plane)
    if options.size not in ("working", "original"):
        raise UsageError(f"--size {options.size}: it is working or original")
    source = MapSource(run, frame, options.photos, options.size)
    plan = make_plan(source, scene, options)
    tags = {
        "local_from_model": json.dumps(frame.from_model.matrix.tolist()),
        "file_from_local": json.dumps(translation(np.array(frame.offset)).tolist()),
    }
    target = Path(target)
    with small_cache():
        known = write_heights(plan, target / DSM, tags)
        if not known:
            raise ReconError(f"{run.root}: no surface in these bounds; leave out --bounds")
        shown = write_ortho(plan, target, tags)
        files = [target / DSM, target / ORTHO, target / PHOTOS_OF_CELLS]
        if options.png:
            write_png(target / ORTHO, target / "ortho.png")
            files.append(target / "ortho.png")
    grid, cells = plan.grid, plan.grid.columns * plan.grid.rows
    facts = {
        "format": 1, "frame": frame.name, "epsg": frame.epsg, "plane": frame.plane, "unit": frame.unit,
        "gsd": grid.gsd, "columns": grid.columns, "rows": grid.rows, "surface": plan.surface,
        "cells_with_height": known, "cells_with_colour": shown, "photos": [view.name for view in source.views],
    }  # fmt: skip
    write_json(target / FACTS, facts)
    unit = frame.unit
    said = f"{grid.columns} x {grid.rows} cells of {grid.gsd:.4g} {unit}, {frame.name}"
    notes += [
        f"heights from: {plan.surface}",
        f"{100 * known / cells:.1f}% of the cells have a height, {100 * shown / cells:.1f}% a colour; the others are "
        "marked as empty",
    ]
    return ExportReport(said, (*files, target / FACTS), tuple(notes))


def find_frame(run: RunFolder, scene: Scene, plane: str) -> tuple[MapFrame, list[str]]:
    """The frame of a run's maps: by its georeference, else level and in the run's own units; and what to say."""
    if run.path(GEOREFERENCE).is_file():
        georeference, notes = read_georeference(run), list[str]()
    else:
        georeference, notes = level_georeference(run)
        notes.insert(
            0, "no georeference: level, in the run's own units; 'recon georeference' finds scale and place"
        )
    looks = np.array([view.cam_from_world[2, :3] for view in scene.views])
    frame, said = map_frame(georeference, plane, looks, scene.xyz)
    return frame, notes + said


def make_plan(source: MapSource, scene: Scene, options: OrthoOptions) -> Plan:
    """Choose extent, cell size and what heights are taken from.

    Raises:
        ReconError: there is no surface. UsageError: bounds, surface or cell size make no sense.
    """
    run = source.run
    if options.surface not in SURFACES:
        raise UsageError(f"--surface {options.surface}: it is one of {', '.join(SURFACES)}")
    boxes = [(view.low, view.high) for view in source.views if view.low is not None and view.high is not None]
    has_mesh = run.mesh_path is not None
    surface = {"auto": "depth maps, else mesh" if has_mesh else "depth maps", "depth": "depth maps"}.get(
        options.surface, "mesh"
    )
    if not boxes or surface == "mesh":
        mesh = source.mesh()
        if mesh is None:
            raise ReconError(
                f"{run.root}: has no depth maps and no mesh; run 'recon reconstruct' as far as stage depth"
                if not boxes
                else f"{run.root}: has no mesh; --surface depth"
            )
        if options.surface == "depth":
            raise ReconError(f"{run.root}: has no depth maps; --surface mesh")
        surface = "mesh"
        low, high = (mesh.vertices.min(axis=0), mesh.vertices.max(axis=0))
    else:
        low = np.min([one for one, _ in boxes], axis=0)
        high = np.max([one for _, one in boxes], axis=0)
    west, south, east, north = (float(value) for value in (*low[:2], *high[:2]))
    if options.bounds is not None:
        given = _bounds(options.bounds) - np.array([*source.frame.offset[:2]] * 2)
        west, south = max(west, given[0]), max(south, given[1])
        east, north = min(east, given[2]), min(north, given[3])
    gsd = options.gsd or photo_gsd(source, scene)
    try:
        grid = MapGrid.of_bounds(west, south, east, north, gsd)
    except ValueError as error:
        raise UsageError(
            f"--bounds {options.bounds}: {error}, or there is nothing of the scene in them"
        ) from error
    if grid.columns * grid.rows > _MOST_CELLS:
        raise UsageError(f"--gsd {gsd:g}: {grid.columns} x {grid.rows} cells are too many; give a larger one")
    source.make_smaller(gsd, 0.5 * float(low[2] + high[2]))
    return Plan(source, grid, float(low[2]), float(high[2]), surface, options.tile)


def _bounds(text: str) -> Float64[np.ndarray, "4"]:
    try:
        values = np.array([float(part) for part in text.split(",")])
    except ValueError:
        values = np.zeros(0)
    if values.shape != (4,) or not np.isfinite(values).all():
        raise UsageError(f"--bounds {text}: it is WEST,SOUTH,EAST,NORTH")
    return values


def photo_gsd(source: MapSource, scene: Scene) -> float:
    """Size of a photo's pixel on the surface, the median over photos, to two digits."""
    points = source.frame.place(scene.xyz) if len(scene.xyz) else np.zeros((0, 3))
    sides = []
    for view in source.views:
        pixel, depth = view.camera.project(points)
        size = view.camera.intrinsics.width, view.camera.intrinsics.height
        seen = (depth > 0) & (pixel >= 0).all(axis=1) & (pixel < size).all(axis=1)
        if seen.any():
            sides.append(float(np.median(depth[seen])) / source.pixels(view))
    if not sides:
        raise ReconError("nothing tells how fine the photos are; give --gsd")
    found = float(np.median(sides))
    digits = 1 - math.floor(math.log10(found))
    return round(found, digits)


# Heights


def write_heights(plan: Plan, path: Path, tags: dict[str, str]) -> int:
    """Write the surface model; returns how many cells have a height."""
    rays: Any = None
    mesh = plan.source.mesh() if "mesh" in plan.surface else None
    if mesh is not None:
        rays = ray_scene(mesh)
    known = 0
    with writing(path, plan.grid, plan.source.frame, "heights", **tags) as raster:
        for tile in plan.tiles:
            heights = tile_heights(plan, tile, rays)
            known += int(np.isfinite(heights).sum())
            file = heights + np.float32(plan.source.frame.offset[2])
            write_tile(raster, np.where(np.isfinite(file), file, np.float32(NODATA)), tile)
    return known


def tile_heights(plan: Plan, tile: Tile, rays: Any) -> Float32[np.ndarray, "h w"]:
    """Heights of a tile, NaN where nothing is known."""
    heights = np.full((tile.rows, tile.columns), np.nan, np.float32)
    if "depth" in plan.surface:
        drawn = [
            one for one in (_drawn(plan, view, tile) for view in _over(plan, tile)) if np.isfinite(one).any()
        ]
        if drawn:
            heights, _ = agreed_heights(np.array(drawn), AGREES_CELLS * plan.grid.gsd)
    if rays is not None:
        x, y = plan.grid.centres(tile)
        top = plan.high + 0.1 * (plan.high - plan.low) + plan.grid.gsd
        hits = cast(rays, tensor_rays(x, y, top))
        heights = np.where(np.isnan(heights) & hits.mask, np.float32(top) - hits.depth, heights)
    return heights


def _over(plan: Plan, tile: Tile) -> Iterator[MapView]:
    """The views whose depth maps reach over a tile."""
    west, south, east, north = plan.grid.bounds(tile)
    for view in plan.source.views:
        if view.low is None or view.high is None:
            continue
        if view.low[0] < east and view.high[0] > west and view.low[1] < north and view.high[1] > south:
            yield view


def _drawn(plan: Plan, view: MapView, tile: Tile) -> Float32[np.ndarray, "h w"]:
    surface, grid = plan.source.depth(view.name), plan.grid
    west, _, _, north = grid.bounds(tile)
    cells = np.empty_like(surface.points)
    cells[..., 0] = (surface.points[..., 0] - west) / grid.gsd - 0.5
    cells[..., 1] = (north - surface.points[..., 1]) / grid.gsd - 0.5
    cells[..., 2] = surface.points[..., 2]
    return heights_of_depth(cells, surface.depth, surface.focal, (tile.rows, tile.columns))


# Colours


@dataclass(frozen=True)
class Seen:
    """The photos that show the cells of a tile.

    Attributes:
        views: that show any of it.
        slots: (k, n) of each cell, indices into ``views``, best first; -1 for none. values: their quality.
        points: (n, 3) the cells' surface.
    """

    views: list[MapView]
    slots: Int16[np.ndarray, "k n"]
    values: Float32[np.ndarray, "k n"]
    points: Float64[np.ndarray, "n 3"]


def see_tile(plan: Plan, dsm: Any, tile: Tile) -> Seen:
    """Find the photos that show each cell best, over what hides it."""
    grid, height_offset = plan.grid, np.float32(plan.source.frame.offset[2])
    wide = tile.grown(plan.margin, grid)
    heights = read_heights(dsm, wide) - height_offset
    x, y = grid.centres(tile)
    row, column = tile.row - wide.row, tile.column - wide.column
    mine = heights[row : row + tile.rows, column : column + tile.columns]
    points = np.stack([x, y, np.nan_to_num(mine, nan=plan.low)], -1).reshape(-1, 3).astype(np.float64)
    west, _, _, north = grid.bounds(wide)
    highest = float(np.nanmax(heights)) if np.isfinite(heights).any() else plan.low
    views: list[MapView] = []
    # Only the best so far are kept, so that memory does not grow with the photos that see a tile.
    slots = np.full((BLENDED, len(points)), -1, np.int16)
    best = np.zeros((BLENDED, len(points)), np.float32)
    for view in plan.source.views:
        value, _ = quality(view.camera, view.reach, points)
        if not (value > 0).any():
            continue
        center = view.camera.center
        at = np.array([(center[0] - west) / grid.gsd - 0.5, (north - center[1]) / grid.gsd - 0.5, center[2]])
        value *= sees(heights, (row, column, tile.rows, tile.columns), at, highest, grid.gsd).ravel()
        if (value > 0).any():
            mine = np.full((1, len(points)), len(views), np.int16)
            slots, best = better_views(
                np.concatenate([slots, mine]), np.concatenate([best, value[None]]), BLENDED
            )
            views.append(view)
    return Seen(views, slots, best, points)


def tile_colors(
    plan: Plan, seen: Seen, shape: tuple[int, int], *, cubic: bool = True
) -> tuple[Float32[np.ndarray, "k h w 3"], Float32[np.ndarray, "k h w"]]:
    """Colours of the cells in each slot's photo, and their quality (0 where a mask forbids it)."""
    values = seen.values.reshape(-1, *shape).copy()
    slots = seen.slots.reshape(-1, *shape)
    colors = np.zeros((*values.shape, 3), np.float32)
    for index, view in enumerate(seen.views):
        mine = slots == index
        if not mine.any():
            continue
        rows, columns = (np.flatnonzero(mine.any(axis=(0, axis))) for axis in (2, 1))
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        points = seen.points.reshape(*shape, 3)[box]
        pixel, _ = view.camera.project(points.reshape(-1, 3))
        pixel = np.nan_to_num(pixel, nan=-1e6).clip(-1e4, 1e5).reshape(*points.shape[:2], 2)
        found, usable = plan.source.colors(view, pixel, cubic=cubic)
        for k in range(len(values)):
            here = mine[k][box]
            colors[k][box][here] = found[here]
            values[k][box][here & ~usable] = 0.0
    return colors, values


def exposures(plan: Plan, dsm: Any, seed: int = 0) -> dict[str, Float64[np.ndarray, "3"]]:
    """Factors that make the photos' exposures equal, from cells all over the map."""
    rng = np.random.default_rng(seed)
    names = [view.name for view in plan.source.views]
    number = {name: row for row, name in enumerate(names)}
    tiles = plan.tiles
    chosen = (
        tiles if len(tiles) <= 24 else [tiles[i] for i in sorted(rng.choice(len(tiles), 24, replace=False))]
    )
    side = max(8, int(math.sqrt(_EXPOSURE_CELLS / len(chosen))))
    all_views, all_colors = [], []
    for tile in chosen:
        rows, columns = min(side, tile.rows), min(side, tile.columns)
        at = Tile(
            tile.column + (tile.columns - columns) // 2, tile.row + (tile.rows - rows) // 2, columns, rows
        )
        seen = see_tile(plan, dsm, at)
        if not seen.views:
            continue
        colors, values = tile_colors(plan, seen, (at.rows, at.columns), cubic=False)
        of = np.array([number[view.name] for view in seen.views], np.int16)
        slots = np.where(values.reshape(len(values), -1) > 0, of[seen.slots], -1)
        missing = 5 - len(slots)
        all_views.append(np.pad(slots, ((0, missing), (0, 0)), constant_values=-1).T)
        flat = np.moveaxis(colors.reshape(len(colors), -1, 3), 0, 1)
        all_colors.append(np.pad(flat, ((0, 0), (0, missing), (0, 0))))
    if not all_views:
        return {name: np.ones(3) for name in names}
    views = np.concatenate(all_views).astype(np.int16)
    faces = Candidates(views, (views >= 0).astype(np.float32), np.concatenate(all_colors))
    return dict(zip(names, fit_gains(faces, len(names)), strict=True))


def write_ortho(plan: Plan, target: Path, tags: dict[str, str]) -> int:
    """Write the orthophoto and which photo each cell shows; returns how many cells have a colour."""
    rasterio, frame, grid = gdal(), plan.source.frame, plan.grid
    number = {view.name: row + 1 for row, view in enumerate(plan.source.views)}
    listed = {f"photo_{row}": name for name, row in number.items()}
    shown = 0
    with (
        rasterio.open(target / DSM) as dsm,
        writing(target / ORTHO, grid, frame, "colours", **tags) as ortho,
        writing(target / PHOTOS_OF_CELLS, grid, frame, "photos", **listed) as photos,
    ):
        gains = exposures(plan, dsm)
        for tile in plan.tiles:
            # A few cells beyond the tile, for what is judged over a neighbourhood.
            wide = tile.grown(8, grid)
            seen = see_tile(plan, dsm, wide)
            shape = (wide.rows, wide.columns)
            inner = (
                slice(tile.row - wide.row, tile.row - wide.row + tile.rows),
                slice(tile.column - wide.column, tile.column - wide.column + tile.columns),
            )
            rgba = np.zeros((*shape, 4), np.uint8)
            which = np.zeros(shape, np.uint16)
            if seen.views:
                there = _colour(plan, seen, shape, gains, number, rgba, which)
                shown += int(there[inner].sum())
            write_tile(ortho, rgba[inner], tile)
            write_tile(photos, which[inner], tile)
    return shown


def _colour(
    plan: Plan,
    seen: Seen,
    shape: tuple[int, int],
    gains: dict[str, Float64[np.ndarray, "3"]],
    number: dict[str, int],
    rgba: np.ndarray,
    which: np.ndarray,
) -> Bool[np.ndarray, "h w"]:
    """Fill the colours of a tile and which photo weighs most in each cell; returns where there are any."""
    colors, values = tile_colors(plan, seen, shape)
    slots = seen.slots.reshape(-1, *shape)
    factor = np.array([gains[view.name] for view in seen.views], np.float32)
    colors *= np.where(slots[..., None] >= 0, factor[slots], np.float32(1.0))
    blended, slot = blend(colors, values)
    there: np.ndarray = slot >= 0
    rgba[..., :3] = np.where(there[..., None], np.clip(np.rint(blended), 0, 255), 0)
    rgba[..., 3] = np.where(there, 255, 0)
    of = np.array([number[view.name] for view in seen.views], np.uint16)
    taken = np.take_along_axis(slots, np.maximum(slot, 0)[None].astype(np.int64), axis=0)[0]
    which[there] = of[taken[there]]
    return there
