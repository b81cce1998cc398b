"""Rendered benchmark scenes: each difficulty does what its number says, and nothing else."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest

from recon.core.mesh import Mesh
from recon.datasets.ground_truth import load_ground_truth
from recon.errors import ReconError, UsageError
from recon.synthetic.difficulties import difficulties, make_benchmark_scene, render_benchmark_scene
from recon.synthetic.materials import SurfaceSamples, plainer, rock_albedo, tiled
from recon.synthetic.noise import fractal_noise
from recon.synthetic.paths import look_at, pinhole_views
from recon.synthetic.reliefs import rock_height
from recon.synthetic.rendering import Lighting, averaged_over_neighbours, render_radiance
from recon.synthetic.scene import SyntheticScene

SIZE = (96, 72)


def small(scene: str = "facade", photos: int = 2, seed: int = 0, **difficulty: float) -> SyntheticScene:
    return make_benchmark_scene(scene, photos=photos, size=SIZE, seed=seed, coarseness=6, **difficulty)


@pytest.fixture(scope="module")
def plain() -> SyntheticScene:
    return small(noise=0)


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mesh") / "cube.obj"
    corners = "".join(f"v {x} {y} {z}\n" for x, y, z in itertools.product((0, 1), repeat=3))
    quads = ("1 2 4 3", "5 7 8 6", "1 5 6 2", "3 4 8 7", "1 3 7 5", "2 6 8 4")
    path.write_text(corners + "".join(f"f {quad}\n" for quad in quads))
    return path


def linear(image: np.ndarray) -> np.ndarray:
    return (image / 255.0) ** 2.2


def centers(scene: SyntheticScene) -> np.ndarray:
    return np.array([view.center for view in scene.views])


def angle(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))))


TARGET = np.array([0.0, -0.2, 2.1])
"""What the cameras of the façade look at."""


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path, cube: Path) -> None:
    def files(folder: Path) -> dict[str, str]:
        return {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    made = []
    for name in ("a", "b"):
        truth = render_benchmark_scene(
            tmp_path / name, scene=str(cube), seed=3, photos=2, size=(48, 36), zoom=2, specularity=0.5
        )
        made.append(files(tmp_path / name))
    assert made[0] == made[1]
    assert {"cameras.json", "scene.json", "truth/mesh.ply", "truth/masks/0000.png", "images/0001.png"} <= set(
        made[0]
    )
    assert truth.name == "cube"
    assert truth.unit_in_metres == 1.0
    assert truth.mesh == tmp_path / "b" / "truth" / "mesh.ply"
    assert truth.depth is not None
    depth = truth.depth("0001.png")
    assert depth is not None
    assert depth.shape == (36, 48)
    other = render_benchmark_scene(tmp_path / "c", scene=str(cube), seed=4, photos=2, size=(48, 36), zoom=2)
    assert other.cameras["0000.png"].center.tolist() != truth.cameras["0000.png"].center.tolist()


def test_a_scene_that_is_there_is_kept(tmp_path: Path, cube: Path) -> None:
    arguments = {"scene": str(cube), "seed": 0, "photos": 2, "size": (32, 24)}
    render_benchmark_scene(tmp_path, **arguments, blur=1)  # type: ignore[arg-type]
    current = (tmp_path / "scene.json").read_text()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    render_benchmark_scene(tmp_path, **arguments, blur=1)  # type: ignore[arg-type]
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    # One of an older version of the renderer is rendered anew.
    stamp = tmp_path / "scene.json"
    stamp.write_text(stamp.read_text().replace('"version": ', '"version": 10'))
    render_benchmark_scene(tmp_path, **arguments, blur=1)  # type: ignore[arg-type]
    assert stamp.read_text() == current
    with pytest.raises(UsageError, match="another rendered scene"):
        render_benchmark_scene(tmp_path, **arguments, blur=2)  # type: ignore[arg-type]
    # One that was cut off before its end is made anew; what is no such scene is left alone.
    (tmp_path / "truth" / "mesh.ply").unlink()
    stamp.rename(tmp_path / "scene.json.part")
    render_benchmark_scene(tmp_path, **arguments, blur=1)  # type: ignore[arg-type]
    assert (tmp_path / "truth" / "mesh.ply").is_file()
    assert stamp.read_text() == current
    stamp.unlink()
    with pytest.raises(UsageError, match="another scene"):
        render_benchmark_scene(tmp_path, **arguments, blur=1)  # type: ignore[arg-type]


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="facade, rocks, object"):
        small("atlantis")
    with pytest.raises(UsageError, match="no difficulty 'fog'; there are: baseline, zoom"):
        small(fog=1)
    with pytest.raises(UsageError, match="zoom is from 1 to 8, not 9"):
        small(zoom=9)
    with pytest.raises(UsageError, match="noise is from"):
        small(noise=float("nan"))
    with pytest.raises(UsageError, match="from behind"):
        small(photos=10, baseline=25)
    with pytest.raises(UsageError, match="at least 2 photos"):
        small(photos=1)
    (tmp_path / "bad.obj").write_text("v 0 0 0\n")
    with pytest.raises(ReconError, match="no triangles"):
        small(str(tmp_path / "bad.obj"))
    for one in difficulties().values():
        assert one.low <= one.default <= one.high


def test_views_agree_with_each_other(tmp_path: Path, cube: Path) -> None:
    """A pixel lifted by its true depth lands on the depth that the other view has there."""
    truth = render_benchmark_scene(tmp_path, scene=str(cube), seed=1, photos=2, size=(160, 120), zoom=1.5)
    assert truth.depth is not None
    a, b = (truth.cameras[name] for name in ("0000.png", "0001.png"))
    da, db = truth.depth("0000.png"), truth.depth("0001.png")
    assert da is not None
    assert db is not None
    y, x = np.nonzero(da)
    rays = np.column_stack([x, y, np.ones(len(x))]) @ np.linalg.inv(a.K).T
    world = (rays * da[y, x][:, None] - a.cam_from_world[:, 3]) @ a.cam_from_world[:, :3]
    local = b.to_camera(world)
    image = local @ b.K.T
    u, v = np.rint(image[:, 0] / image[:, 2]).astype(int), np.rint(image[:, 1] / image[:, 2]).astype(int)
    inside = (u >= 0) & (u < 160) & (v >= 0) & (v < 120)
    difference = db[v[inside], u[inside]] - local[inside, 2]
    # What is not hidden agrees to the slope over half a pixel; what is hidden lies behind.
    assert (np.abs(difference) < 0.03).mean() > 0.8
    assert np.median(np.abs(difference)) < 0.005
    assert ((difference < 0.03) | (db[v[inside], u[inside]] == 0)).mean() > 0.97
    mask = cv2.imread(str(tmp_path / "truth" / "masks" / "0000.png"), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(np.asarray(mask) > 0, da > 0)
    with np.load(tmp_path / "truth" / "depth" / "0000.npz") as data:
        normal = data["normal"]
    np.testing.assert_allclose(np.linalg.norm(normal[da > 0], axis=1), 1, atol=1e-5)
    assert (normal[da > 0] * rays).sum(axis=1).max() < 1e-6
    assert load_ground_truth(tmp_path).masks == tmp_path / "truth" / "masks"


def test_zoom_is_the_ratio_of_distances() -> None:
    for zoom in (1.0, 2.0, 4.0):
        distances = np.linalg.norm(centers(small(photos=4, zoom=zoom)) - TARGET, axis=1)
        np.testing.assert_allclose(distances[::2] / distances[1::2], zoom, rtol=0.06)


def test_baseline_is_the_angle_between_neighbours() -> None:
    for baseline in (4.0, 20.0):
        flat = (centers(small(photos=4, baseline=baseline)) - TARGET) * [1, 1, 0]
        for a, b in itertools.pairwise(flat):
            assert angle(a, b) == pytest.approx(baseline, abs=1.5)


def test_roll_turns_neighbours_against_each_other() -> None:
    views = small(photos=3, roll=60).views
    up = [view.cam_from_world[:, :3] @ [0, 0, 1] for view in views]
    turned = [np.degrees(np.arctan2(v[0], -v[1])) for v in up]
    assert abs(turned[1] - turned[0]) == pytest.approx(60, abs=0.5)
    assert turned[2] == pytest.approx(turned[0], abs=0.5)


def test_photometric_difficulties_leave_the_geometry(plain: SyntheticScene) -> None:
    hard = small(exposure=1, noise=9, blur=2, low_texture=0.5, repeated_texture=0.5, specularity=1)
    for a, b in zip(plain.depths, hard.depths, strict=True):
        np.testing.assert_array_equal(a, b)
    for va, vb in zip(plain.views, hard.views, strict=True):
        np.testing.assert_array_equal(va.cam_from_world, vb.cam_from_world)


def test_exposure_is_spread_in_stops(plain: SyntheticScene) -> None:
    hard = small(noise=0, exposure=0.5)
    ratios = []
    for a, b in zip(plain.images, hard.images, strict=True):
        usable = (a > 30) & (a < 150) & (b > 20) & (b < 240)
        ratios.append(np.median(linear(b)[usable] / linear(a)[usable]))
    np.testing.assert_allclose(sorted(ratios), [2**-0.5, 2**0.5], rtol=0.02)


def test_noise_is_as_strong_as_it_says(plain: SyntheticScene) -> None:
    for level in (4.0, 16.0):
        noisy = small(noise=level)
        a, b = plain.images[0].astype(float), noisy.images[0].astype(float)
        middle = np.abs(a - 127.5) < 12
        assert (b - a)[middle].std() == pytest.approx(level, rel=0.06)


def test_blur_is_a_gaussian_of_the_light(plain: SyntheticScene) -> None:
    base = small(noise=0, blur=0)
    blurred = small(noise=0, blur=2)
    expected = cv2.GaussianBlur(linear(base.images[0]), (0, 0), 2.0, borderType=cv2.BORDER_REPLICATE)
    difference = blurred.images[0] - expected ** (1 / 2.2) * 255
    assert np.abs(difference).mean() < 2.5
    assert np.abs(plain.images[0] - expected ** (1 / 2.2) * 255).mean() > 4


def samples(position: np.ndarray, normal: tuple[float, float, float] = (0, -1, 0)) -> SurfaceSamples:
    n = len(position)
    return SurfaceSamples(
        position.astype(np.float32),
        np.tile(np.float32(normal), (n, 1)),
        np.zeros(n, np.int32),
        np.zeros((n, 3), np.float32),
        np.full(n, 0.002, np.float32),
    )


def test_low_texture_takes_its_share_of_the_contrast() -> None:
    points = samples(np.random.default_rng(0).uniform(0, 1, (500, 3)))
    albedo = rock_albedo(0)
    mean = np.array([0.4, 0.3, 0.2], np.float32)
    before = np.log(albedo(points))
    for amount in (0.0, 0.5, 1.0):
        after = np.log(plainer(albedo, mean, amount)(points))
        np.testing.assert_allclose(after.std(axis=0), (1 - amount) * before.std(axis=0), atol=1e-5)
    np.testing.assert_allclose(np.exp(after), np.tile(mean, (500, 1)), rtol=1e-5)


def test_low_texture_leaves_the_light_alone() -> None:
    """Without its own colours, a façade is grey where it is lit, and still shows its relief."""
    bare = small(noise=0, low_texture=1)
    image = linear(bare.images[0])[bare.masks[0]]
    ratio = image[:, 0] / image[:, 2]
    assert np.percentile(ratio, 95) / np.percentile(ratio, 5) < 1.35
    assert image.std() > 0.03


def test_repeated_texture_repeats() -> None:
    rng = np.random.default_rng(0)
    own = rock_albedo(0)
    mean = np.array([0.4, 0.35, 0.3], np.float32)
    base = rng.uniform(0.02, 0.38, (400, 3)) * [1, 0, 1]
    shift = np.array([0.4 * 3, 0.0, -0.4 * 2])
    for amount, same in ((1.0, True), (0.5, False)):
        paint = tiled(own, mean, amount, 0.4, 1)
        a, b = paint(samples(base)), paint(samples(base + shift))
        assert np.allclose(a, b, rtol=0.02) is same
    assert a.std() > 0.02
    np.testing.assert_allclose(tiled(own, mean, 0.0, 0.4)(samples(base)), own(samples(base)), rtol=1e-4)
    # The other axes of a floor and of a side wall repeat too.
    paint = tiled(own, mean, 1.0, 0.4, 1)
    floor = rng.uniform(0.02, 0.38, (400, 3))
    for normal, axes in (((0, 0, 1), (0, 1)), ((1, 0, 0), (1, 2))):
        moved = floor.copy()
        moved[:, axes[0]] += 0.8
        moved[:, axes[1]] -= 0.4
        np.testing.assert_allclose(
            paint(samples(floor, normal)),
            paint(samples(moved, normal)),
            rtol=0.02,  # type: ignore[arg-type]
        )


def test_gloss_is_where_a_mirror_would_show_the_lamp() -> None:
    """A flat floor under a camera: the brightest pixel is where the reflected ray points at the lamp."""
    floor = Mesh(
        np.array([[-9, -9, 0], [9, -9, 0], [9, 9, 0], [-9, 9, 0]], np.float32),
        np.array([[0, 1, 2], [0, 2, 3]], np.int32),
    )
    lamp = np.array([0.3, 0.6, 1.0])
    view = pinhole_views([look_at((0, -3, 3), (0, 0, 0))], 81, 61, 60)[0]
    lit = np.tile(np.array([[0.0, 1.0]], np.float32), (4, 1))

    def radiance(strength: float) -> np.ndarray:
        light = Lighting(
            sun_strength=0, sky_strength=1, specular=strength, shininess=200, lamps=(tuple(lamp),)
        )
        return render_radiance(
            floor, view, lambda s: np.full((len(s.face), 3), 0.2, np.float32), light, lit, 1
        )

    added = radiance(0.5) - radiance(0.0)
    y, x = np.unravel_index(added[..., 0].argmax(), added.shape[:2])
    ray = np.linalg.inv(view.K) @ [x, y, 1] @ view.cam_from_world[:, :3]
    mirror = ray * [1, 1, -1]
    assert angle(mirror, lamp) < 1.5
    assert added.max() == pytest.approx(0.5, rel=0.03)
    assert np.median(added) < 0.01


def test_gloss_moves_with_the_camera(plain: SyntheticScene) -> None:
    """The same point of the wall has the same colour in two photos without gloss, and not with it."""
    glossy = small(noise=0, specularity=1)

    def differences(scene: SyntheticScene) -> np.ndarray:
        va, vb = scene.views
        y, x = np.mgrid[6:66:2, 6:90:2].reshape(2, -1)
        z = scene.depths[0][y, x]
        local = np.column_stack([x, y, np.ones(len(x))]) @ np.linalg.inv(va.K).T * z[:, None]
        world = (local - va.cam_from_world[:, 3]) @ va.cam_from_world[:, :3]
        other = world @ vb.cam_from_world[:, :3].T + vb.cam_from_world[:, 3]
        image = other @ vb.K.T
        u, v = (image[:, :2] / image[:, 2:]).T.astype(np.float32)
        seen = cv2.remap(scene.depths[1], u[None], v[None], cv2.INTER_NEAREST)[0]
        same = (z > 0) & (np.abs(seen - other[:, 2]) < 0.02)
        colors = cv2.remap(linear(scene.images[1]).astype(np.float32), u[None], v[None], cv2.INTER_LINEAR)[0]
        return np.abs(colors - linear(scene.images[0][y, x]))[same]

    assert np.percentile(differences(glossy), 90) > 1.3 * np.percentile(differences(plain), 90)


def test_averaging_over_neighbours() -> None:
    """Against the dense matrix of the same mesh; a constant stays."""
    mesh = Mesh(np.zeros((5, 3), np.float32), np.array([[0, 1, 2], [0, 2, 3], [3, 2, 4]], np.int32))
    near = np.eye(5)
    for a, b in ((0, 1), (1, 2), (2, 0), (2, 3), (3, 0), (2, 4), (4, 3)):
        near[a, b] = near[b, a] = 1
    near /= near.sum(axis=1, keepdims=True)
    values = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    np.testing.assert_allclose(
        averaged_over_neighbours(mesh, values, 3), near @ near @ near @ values, rtol=1e-5
    )
    np.testing.assert_allclose(averaged_over_neighbours(mesh, np.ones((5, 2), np.float32), 4), 1, rtol=1e-6)


def test_rocks_have_relief_and_texture() -> None:
    x, z = np.meshgrid(np.linspace(-3, 3, 200).astype(np.float32), np.linspace(0, 4, 160).astype(np.float32))
    height = rock_height(0)(x, z)
    assert np.isfinite(height).all()
    assert 0.4 < np.ptp(height) < 1.6
    assert np.abs(height - rock_height(1)(x, z)).mean() > 0.05
    scene = small("rocks", noise=0)
    assert scene.images[0].std() > 20


def test_objects_are_seen_whole() -> None:
    scene = make_benchmark_scene("object", photos=2, size=(64, 48), coarseness=4, baseline=15)
    # The knot stands in the middle: the depth there is less than that of the ground before it.
    for depth in scene.depths:
        assert depth[24, 32] > 0
        assert (depth > 0).mean() > 0.6


def test_noise_of_one_seed_is_one_noise() -> None:
    """Tiles are the same noise at local coordinates: no dependence on where the tile is."""
    points = np.random.default_rng(0).uniform(0, 0.3, (50, 3)).astype(np.float32)
    np.testing.assert_array_equal(
        fractal_noise(points, 0.01, seed=5), fractal_noise(points.copy(), 0.01, seed=5)
    )
