"""Maps of a rendered hamlet: heights, colours and places against the truth, opened by rasterio."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from recon.cli import main
from recon.core.mesh import Mesh
from recon.core.raycasting import ray_scene, tensor
from recon.exports.source import load_scene
from recon.maps.grid import MapGrid
from recon.maps.heights import agreed_heights, heights_of_depth
from recon.maps.making import find_frame, make_plan, run_ortho, see_tile, tile_heights
from recon.maps.options import OrthoOptions
from recon.maps.ortho import blend, sees
from recon.maps.source import MapSource
from recon.run.folder import RunFolder
from recon.synthetic.scene import SyntheticScene
from tests.unit.maps.conftest import OFFSET, write_hamlet

rasterio = pytest.importorskip("rasterio")


@pytest.fixture(scope="module")
def maps(hamlet_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("maps") / "maps"
    assert main(["ortho", str(hamlet_run), "--out", str(target), "--tile", "128"]) == 0
    return target


def truth(raster: Any, mesh: Mesh) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x and y on the land of all cells, and its height there, by rays straight down."""
    columns, rows = np.meshgrid(np.arange(raster.width) + 0.5, np.arange(raster.height) + 0.5)
    place = raster.transform
    x, y = place.c + place.a * columns - OFFSET[0], place.f + place.e * rows - OFFSET[1]
    down = np.stack([x, y, 0 * x + 100, 0 * x, 0 * x, 0 * x - 1], -1).astype(np.float32)
    return x, y, 100 - ray_scene(mesh).cast_rays(tensor(down))["t_hit"].numpy()


def test_surface_model_lies_on_the_land(maps: Path, hamlet: SyntheticScene) -> None:
    with rasterio.open(maps / "dsm.tif") as raster:
        assert raster.crs.to_epsg() == 25832
        assert raster.block_shapes == [(256, 256)]
        assert raster.nodata == -9999.0
        heights = raster.read(1, masked=True)
        x, y, there = truth(raster, hamlet.mesh)
        gsd = raster.transform.a
    inside = (np.abs(x) < 24) & (np.abs(y) < 18)
    known = inside & ~np.ma.getmaskarray(heights)
    assert known.sum() > 0.94 * inside.sum()  # beside the walls no photo sees the ground
    error = heights.filled(np.nan)[known] - OFFSET[2] - there[known]
    assert np.median(np.abs(error)) < 0.25 * gsd
    assert np.percentile(np.abs(error), 90) < gsd


def test_each_cell_shows_the_place_where_it_lies(maps: Path, hamlet: SyntheticScene) -> None:
    """The pixel that gave a cell its colour shows, by a ray through the true land, that cell and no other."""
    with rasterio.open(maps / "dsm.tif") as raster:
        heights = raster.read(1, masked=True).filled(np.nan) - OFFSET[2]
        x, y, _ = truth(raster, hamlet.mesh)
        gsd = raster.transform.a
    with rasterio.open(maps / "photos.tif") as raster:
        label, names = raster.read(1), raster.tags()
    rays = ray_scene(hamlet.mesh)
    off = np.full(label.shape, np.nan)
    for number in np.unique(label[label > 0]):
        view = next(view for view in hamlet.views if view.name == names[f"photo_{number}"])
        mine = label == number
        pixel, _ = view.project(np.stack([x[mine], y[mine], heights[mine]], -1))
        toward = np.column_stack([pixel, np.ones(len(pixel))]) @ np.linalg.inv(view.K).T
        toward = toward @ view.cam_from_world[:, :3]
        ray = np.hstack([np.broadcast_to(view.center, toward.shape), toward]).astype(np.float32)
        hit = view.center + toward * rays.cast_rays(tensor(ray))["t_hit"].numpy()[:, None]
        off[mine] = np.hypot(hit[:, 0] - x[mine], hit[:, 1] - y[mine]) / gsd
    inside = (label > 0) & (np.abs(x) < 24) & (np.abs(y) < 18)
    assert inside.sum() > 0.9 * ((np.abs(x) < 24) & (np.abs(y) < 18)).sum()
    assert np.mean(off[inside] <= 1.0) > 0.95


def test_picture_has_the_same_cells_and_a_world_file(maps: Path) -> None:
    with rasterio.open(maps / "ortho.tif") as raster:
        assert [one.name for one in raster.colorinterp] == ["red", "green", "blue", "alpha"]
        cells, place = np.moveaxis(raster.read(), 0, -1), raster.transform
    picture = cv2.imread(str(maps / "ortho.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(picture[..., [2, 1, 0, 3]], cells)
    world = [float(line) for line in (maps / "ortho.pgw").read_text().split()]
    np.testing.assert_allclose([world[0], world[3]], [place.a, place.e])
    np.testing.assert_allclose(world[4:], [place.c + place.a / 2, place.f + place.e / 2], atol=1e-6)
    assert (cells[cells[..., 3] == 0] == 0).all()
    facts = json.loads((maps / "maps.json").read_text())
    assert facts["cells_with_colour"] == (cells[..., 3] > 0).sum()


def test_tiles_do_not_change_heights(hamlet_run: Path) -> None:
    run = RunFolder(hamlet_run)
    scene = load_scene(run)
    frame, _ = find_frame(run, scene, "ground")
    source = MapSource(run, frame)
    pieces = []
    for side in (64, 512):
        plan = make_plan(source, scene, OrthoOptions(gsd=0.4, tile=side))
        whole = np.zeros((plan.grid.rows, plan.grid.columns), np.float32)
        for tile in plan.tiles:
            rows, columns = (
                slice(tile.row, tile.row + tile.rows),
                slice(tile.column, tile.column + tile.columns),
            )
            whole[rows, columns] = tile_heights(plan, tile, None)
        pieces.append(whole)
    np.testing.assert_allclose(pieces[0], pieces[1], atol=1e-5)


def test_lines_of_sight_agree_with_ray_casting() -> None:
    """The same field of blocks as a mesh of boxes, and Embree."""
    rng = np.random.default_rng(2)
    heights = np.zeros((60, 80), np.float32)
    for _ in range(12):
        r, c = rng.integers(5, 50), rng.integers(5, 70)
        heights[r : r + 6, c : c + 8] = rng.uniform(3, 12)
    camera = np.array([-30.0, 20.0, 60.0])
    seen = sees(heights, (0, 0, 60, 80), camera, float(heights.max()), 1.0)
    corners, faces = [], []
    for r in range(60):
        for c in range(80):
            base, h = len(corners), float(heights[r, c])
            corners += [(c + dx, r + dy, z) for z in (-1.0, h) for dy in (-0.5, 0.5) for dx in (-0.5, 0.5)]
            for quad in ((4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5)):
                a, b, c2, d = (base + k for k in quad)
                faces += [[a, b, c2], [a, c2, d]]
    rays = ray_scene(Mesh(np.array(corners, np.float32), np.array(faces, np.int32)))
    x, y = np.meshgrid(np.arange(80.0), np.arange(60.0))
    start = np.stack([x, y, heights + 1e-3], -1)
    away = camera - start
    hit = rays.cast_rays(tensor(np.concatenate([start, away], -1).astype(np.float32)))["t_hit"].numpy()
    assert np.mean(seen == ~np.isfinite(hit)) > 0.96
    assert 0.5 < seen.mean() < 0.95


def test_depth_drawn_from_above_keeps_the_upper_surface_and_cuts_edges() -> None:
    """A plane with a step: each side keeps its height, and nothing is drawn across the step."""
    depth = np.full((21, 41), 10.0, np.float32)
    depth[:, 20:] = 6.0
    x, y = np.meshgrid(np.arange(41.0), np.arange(21.0))
    points = np.stack([x * depth / 10, y * depth / 10, -depth], -1)
    found = heights_of_depth(points, depth, 10.0, (12, 24))
    assert set(np.unique(found[np.isfinite(found)])) == {-10.0, -6.0}
    assert (found[:, 13:19] == -6.0).all()
    assert (found[:, :12] == -10.0).all()


def test_heights_that_nobody_shares_lose() -> None:
    stack = np.array([[[9.0]], [[1.0]], [[1.2]], [[1.1]]], np.float32)
    height, spread = agreed_heights(stack, 0.5)
    np.testing.assert_allclose(height, 1.1, atol=1e-6)
    np.testing.assert_allclose(spread, 0.1, atol=1e-5)
    upper, _ = agreed_heights(np.array([[[1.0]], [[1.1]], [[5.0]], [[5.1]], [[np.nan]]], np.float32), 0.5)
    np.testing.assert_allclose(upper, 5.05)
    empty, _ = agreed_heights(np.full((3, 1, 1), np.nan, np.float32), 0.5)
    assert np.isnan(empty).all()


def test_what_moves_is_left_out(hamlet: SyntheticScene, tmp_path: Path, maps: Path) -> None:
    """A red car stands in one photo only, in the middle of where that photo is the best."""
    images = [image.copy() for image in hamlet.images]
    images[1][70:84, 96:124] = (255, 0, 0)
    run_ortho(RunFolder(write_hamlet(hamlet, tmp_path / "run", images)), tmp_path / "maps", OrthoOptions())
    with rasterio.open(tmp_path / "maps" / "ortho.tif") as raster:
        red, green, _, alpha = raster.read().astype(int)
    with rasterio.open(maps / "ortho.tif") as raster:
        before = raster.read().astype(int)
    assert ((red > 200) & (green < 60) & (alpha > 0)).sum() == 0
    assert np.abs(np.stack([red, green]) - before[:2]).max() < 60


def test_a_single_contradiction_among_three_weighs_nothing() -> None:
    colors = np.full((3, 20, 20, 3), 100, np.float32)
    colors[0, 5:15, 5:15] = 220
    values = np.ones((3, 20, 20), np.float32) * np.array([1.0, 0.9, 0.8], np.float32)[:, None, None]
    out, slot = blend(colors, values)
    assert np.abs(out - 100).max() < 3
    assert (slot[8:12, 8:12] == 1).all()
    assert (slot[:2] == 0).all()


def test_facade_lies_upright_before_the_viewer(hamlet_run: Path) -> None:
    run = RunFolder(hamlet_run)
    frame, _ = find_frame(run, load_scene(run), "0,-1,0")
    land = np.array([[0.0, 0, 0], [1, 0, 0], [0, 0, 1], [0, -1, 0]])
    from tests.unit.maps.conftest import LAND_FROM_MODEL

    seen = frame.from_model(LAND_FROM_MODEL.inverse()(land))
    np.testing.assert_allclose(seen[1:] - seen[0], [[1, 0, 0], [0, 1, 0], [0, 0, 1]], atol=1e-12)
    assert frame.epsg is None


def test_hidden_cells_are_not_taken_from_photos_that_cannot_see_them(hamlet_run: Path) -> None:
    run = RunFolder(hamlet_run)
    scene = load_scene(run)
    source = MapSource(run, find_frame(run, scene, "ground")[0])
    plan = make_plan(source, scene, OrthoOptions(gsd=0.5))
    from recon.maps.rasters import write_tile, writing

    (tile,) = plan.tiles
    path = run.root.parent / "flat.tif"
    heights = np.full((tile.rows, tile.columns), 500.0, np.float32)
    heights[:, tile.columns // 2] = (
        530.0  # a wall from south to north, higher than the slant of half the photos
    )
    with writing(path, plan.grid, source.frame, "heights") as raster:
        write_tile(raster, heights, tile)
    with rasterio.open(path) as dsm:
        seen = see_tile(plan, dsm, tile)
    east = np.arange(tile.columns) > tile.columns // 2 + 2
    for index, view in enumerate(seen.views):
        if abs(view.camera.center[0]) > 5:
            mine = (seen.slots == index).any(axis=0).reshape(tile.rows, tile.columns)
            side = east if view.camera.center[0] < 0 else ~east
            columns = np.flatnonzero(mine[tile.rows // 2] & side)
            assert len(columns) < 0.1 * side.sum() + 6


def test_grid_by_hand() -> None:
    grid = MapGrid.of_bounds(-1.0, 0.0, 2.1, 1.0, 0.5)
    assert (grid.west, grid.north, grid.columns, grid.rows) == (-1.0, 1.0, 7, 2)
    (tile,) = grid.tiles(100)
    x, y = grid.centres(tile)
    assert (x[0, 0], y[0, 0], y[1, 0]) == (-0.75, 0.75, 0.25)
    with pytest.raises(ValueError, match="west"):
        MapGrid.of_bounds(1, 0, 0, 1, 0.5)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--plane", "up"], "--plane up"),
        (["--size", "large"], "--size large"),
        (["--surface", "mesh"], "has no mesh"),
        (["--surface", "both"], "--surface both"),
        (["--bounds", "1,2,3"], "WEST,SOUTH"),
        (["--bounds", "0,0,1,1"], "nothing of the scene"),
        (["--gsd", "0.0000001"], "too many"),
    ],
)
def test_bad_options_say_the_way_out(
    options: list[str], says: str, hamlet_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ortho", str(hamlet_run), *options]) in (1, 2)
    assert says in capsys.readouterr().err


def test_photos_at_full_size_make_a_finer_map(hamlet: SyntheticScene, tmp_path: Path, maps: Path) -> None:
    """The files are twice as large as the run's photos and hold a pattern that those do not."""
    root = write_hamlet(hamlet, tmp_path / "run")
    photos = json.loads((root / "photos.json").read_text())
    for photo in photos["photos"]:
        photo["original_width"], photo["original_height"] = 440, 320
    (root / "photos.json").write_text(json.dumps(photos))
    (tmp_path / "files").mkdir()
    for view, image in zip(hamlet.views, hamlet.images, strict=True):
        large = cv2.resize(image, (440, 320), interpolation=cv2.INTER_NEAREST)
        large[::2, :, 1] = 255  # rows of the file, gone when it is made smaller
        large[1::2, :, 1] = 0
        cv2.imwrite(str(tmp_path / "files" / view.name), large[..., ::-1])
    options = [
        "--size",
        "original",
        "--photos",
        str(tmp_path / "files"),
        "--bounds",
        "691495,5334695,691503,5334703",
    ]
    assert main(["ortho", str(root), *options]) == 0
    with rasterio.open(maps / "ortho.tif") as raster:
        coarse = raster.transform.a
    with rasterio.open(root / "maps" / "ortho.tif") as raster:
        assert raster.transform.a == pytest.approx(0.5 * coarse, rel=0.06)
        green, alpha = raster.read(2).astype(float), raster.read(4)
    assert green[alpha > 0].std() > 60


def test_without_a_georeference_it_says_what_it_used(
    hamlet: SyntheticScene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_hamlet(hamlet, tmp_path / "run")
    (root / "georeference.json").unlink()
    assert main(["ortho", str(root), "--gsd", "0.4"]) == 0
    said = capsys.readouterr().out
    assert "no georeference" in said
    assert "the run's own units" in said
    with rasterio.open(root / "maps" / "ortho.tif") as raster:
        assert raster.crs is None or raster.crs.to_epsg() is None
        assert raster.read(4).any()
