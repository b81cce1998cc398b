"""Contours and volumes of surfaces with known answers, and of the rendered hamlet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from recon.cli import main
from recon.maps.contours import contour_lines, smoothed
from recon.maps.volume import volume_over
from recon.synthetic.aerial import HEAPS
from tests.unit.maps.conftest import OFFSET

rasterio = pytest.importorskip("rasterio")


@pytest.fixture(scope="module")
def maps(hamlet_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("maps") / "maps"
    assert main(["ortho", str(hamlet_run), "--out", str(target), "--no-png"]) == 0
    return target


def ring(radius: float, count: int = 60) -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, count)
    return np.column_stack([radius * np.cos(t), radius * np.sin(t)])


def polygon(path: Path, points: np.ndarray, name: str = "heap") -> Path:
    geometry = {"type": "Polygon", "coordinates": [points.tolist()]}
    path.write_text(json.dumps({"type": "Feature", "properties": {"name": name}, "geometry": geometry}))
    return path


def test_contours_of_a_cone_are_circles() -> None:
    y, x = np.mgrid[0:101, 0:101]
    cone = (20 - 0.5 * np.hypot(x - 50, y - 50)).astype(np.float32)
    for level, lines in contour_lines(cone, np.array([5.0, 10.0, 15.0])):
        (line,) = lines
        away = np.hypot(line[:, 0] - 50, line[:, 1] - 50)
        np.testing.assert_allclose(away, (20 - level) / 0.5, atol=0.05)
    cone[:, :50] = np.nan
    (_, lines), *_ = contour_lines(cone, np.array([10.0]))
    assert min(line[:, 0].min() for line in lines) >= 50


def test_smoothing_keeps_planes_and_holes() -> None:
    y, x = np.mgrid[0:60, 0:60]
    plane = (0.1 * x + 0.2 * y).astype(np.float32)
    plane[10:14, 10:14] = np.nan
    out = smoothed(plane, 2.0)
    assert np.isnan(out[10:14, 10:14]).all()
    np.testing.assert_allclose(out[30:50, 30:50], plane[30:50, 30:50], atol=1e-3)


def disc(size: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[0:size, 0:size] - size / 2
    return (np.hypot(x, y) <= radius).astype(np.float32), ring(radius) + size / 2


def test_volume_of_a_cone_on_a_slope() -> None:
    """A base through the boundary takes the slope of the ground away."""
    gsd, size = 0.1, 120
    y, x = np.mgrid[0:size, 0:size] - size / 2
    ground = 3 + gsd * (0.2 * x - 0.1 * y)
    cone = np.clip(1 - gsd * np.hypot(x, y) / 4.0, 0, None) * 2.0
    share, boundary = disc(size, 45)
    found = volume_over((ground + cone).astype(np.float32), share, boundary, gsd)
    assert found.net == pytest.approx(np.pi * 16 * 2.0 / 3, rel=0.005)
    assert found.below < 0.05
    flat = volume_over((3 + cone).astype(np.float32), share, boundary, gsd, level=2.5)
    assert flat.net == pytest.approx(np.pi * 16 * 2.0 / 3 + 0.5 * found.area, rel=0.005)
    pit = volume_over((3 - cone).astype(np.float32), share, boundary, gsd)
    assert pit.net == pytest.approx(-np.pi * 16 * 2.0 / 3, rel=0.005)


def test_stated_deviation_of_volumes_holds() -> None:
    """Noise that is smooth over a window, as that of depth maps is: volumes err as stated."""
    import cv2

    rng = np.random.default_rng(4)
    gsd, size = 0.1, 120
    y, x = np.mgrid[0:size, 0:size] - size / 2
    cone = np.clip(1 - gsd * np.hypot(x, y) / 4.0, 0, None) * 2.0
    share, boundary = disc(size, 45)
    ratio = []
    for _ in range(25):
        noise = cv2.GaussianBlur(rng.normal(0, 1, (size, size)), (0, 0), 4.0)
        noise *= 0.02 / noise.std()
        found = volume_over((cone + noise).astype(np.float32), share, boundary, gsd)
        ratio.append((found.net - np.pi * 16 * 2.0 / 3) / found.sigma)
    assert np.mean(np.abs(ratio) < 2) >= 0.9
    assert np.sqrt(np.mean(np.square(ratio))) > 0.3


def test_holes_are_closed_and_told_of() -> None:
    gsd, size = 0.1, 120
    share, boundary = disc(size, 45)
    heights = np.full((size, size), 7.0, np.float32)
    heights[55:65, 55:65] = np.nan
    found = volume_over(heights, share, boundary, gsd, level=5.0)
    assert found.net == pytest.approx(2 * found.area, rel=1e-4)
    assert found.unknown == pytest.approx(100 / share.sum(), rel=1e-3)
    heights[30:] = np.nan
    with pytest.raises(ValueError, match="has no heights"):
        volume_over(heights, share, boundary, gsd, level=5.0)


def test_heap_of_the_hamlet(
    maps: Path, hamlet_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x, y, radius, height = HEAPS[0]
    at = ring(radius + 0.6) + np.array([x, y]) + OFFSET[:2]
    path = polygon(tmp_path / "heap.geojson", at)
    assert main(["volume", str(hamlet_run), "--maps", str(maps), "--polygon", str(path)]) == 0
    said = capsys.readouterr().out
    volume = float(said.split(": ")[1].split(" m³")[0])
    assert volume == pytest.approx(np.pi * radius**2 * height / 3, rel=0.03)
    assert "±" in said
    pyproj = pytest.importorskip("pyproj")
    to_degrees = pyproj.Transformer.from_crs(25832, 4326, always_xy=True)
    degrees = np.column_stack(to_degrees.transform(at[:, 0], at[:, 1]))
    polygon(path, degrees)
    assert main(["volume", str(hamlet_run), "--maps", str(maps), "--polygon", str(path)]) == 0
    assert float(capsys.readouterr().out.split(": ")[1].split(" m³")[0]) == pytest.approx(volume, rel=1e-3)


def test_contours_of_the_hamlet_lie_on_its_surface(
    maps: Path, hamlet_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "lines.geojson"
    arguments = ["contours", str(hamlet_run), "--maps", str(maps), "--out", str(out), "--interval", "0.5"]
    assert main([*arguments, "--smooth", "0", "--shortest", "0"]) == 0
    assert "lines every 0.5" in capsys.readouterr().out
    data = json.loads(out.read_text())
    assert data["crs"]["properties"]["name"].endswith("25832")
    with rasterio.open(maps / "dsm.tif") as raster:
        heights, place = raster.read(1), raster.transform
    for feature in data["features"][::7]:
        x, y = np.array(feature["geometry"]["coordinates"]).T
        column, row = (x - place.c) / place.a - 0.5, (y - place.f) / place.e - 0.5
        c, r = np.floor(column + 1e-3).astype(int), np.floor(row + 1e-3).astype(int)
        about = [
            heights[np.minimum(r + i, heights.shape[0] - 1), np.minimum(c + j, heights.shape[1] - 1)]
            for i in (0, 1)
            for j in (0, 1)
        ]
        low, high = np.min(about, axis=0), np.max(about, axis=0)
        level = feature["properties"]["height"]
        assert np.mean((low <= level + 0.02) & (high >= level - 0.02)) > 0.95


@pytest.mark.parametrize(
    ("points", "base", "says"),
    [
        ([[0, 0], [1, 0], [1, 1], [0, 0]], "boundary", "outside of the map"),
        ([[0, 0], [1, 0]], "boundary", "three corners"),
        ([[0, 0], [1, 0], [1, 1], [0, 0]], "high", "--base high"),
    ],
)
def test_bad_polygons_and_bases(
    points: list[list[float]],
    base: str,
    says: str,
    maps: Path,
    hamlet_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = polygon(tmp_path / "p.geojson", np.array(points, float) + 1000.0)
    arguments = ["volume", str(hamlet_run), "--maps", str(maps), "--polygon", str(path), "--base", base]
    assert main(arguments) in (1, 2)
    assert says in capsys.readouterr().err


def test_no_surface_model_yet(hamlet_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["contours", str(hamlet_run), "--maps", "nowhere"]) == 1
    assert "recon ortho" in capsys.readouterr().err
