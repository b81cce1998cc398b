"""Synthetic scenes: photos, depths and cameras must tell one story."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from recon.core.mesh import mesh_from_open3d
from recon.core.raycasting import render_vertex_colors
from recon.datasets.cards import load_card, load_cards
from recon.errors import UsageError
from recon.io.cameras_json import read_cameras_json
from recon.io.surfaces import read_mesh
from recon.synthetic.files import write_scene
from recon.synthetic.paths import arc_path, look_at, pinhole_views, zoom_path
from recon.synthetic.presets import make_demo, make_scene
from recon.synthetic.scene import SyntheticScene
from recon.synthetic.sensor import Sensor, photograph
from recon.synthetic.shapes import grid_faces, knot_mesh, object_mesh, superellipsoid_mesh


@pytest.fixture(scope="module")
def scene() -> SyntheticScene:
    return make_scene("demo", (160, 120), coarseness=4)


def test_look_at_by_hand() -> None:
    pose = look_at((0, -3, 0), (0, 0, 0))
    np.testing.assert_allclose(pose[:, :3], [[1, 0, 0], [0, 0, -1], [0, 1, 0]], atol=1e-12)
    np.testing.assert_allclose(pose[:, 3], [0, 0, 3], atol=1e-12)
    # A point to the right and above appears right of and above the centre.
    camera = pose[:, :3] @ [1, 0, 1] + pose[:, 3]
    assert camera[0] > 0 > camera[1]


def test_paths_look_where_they_should() -> None:
    for pose in arc_path(6, (1, 2, 0.5), 3.0, 360, 1.0):
        center = -pose[:, :3].T @ pose[:, 3]
        np.testing.assert_allclose(np.linalg.norm(center - [1, 2, 0.5]), np.sqrt(10))
        np.testing.assert_allclose(pose[:, :3] @ [1, 2, 0.5] + pose[:, 3], [0, 0, np.sqrt(10)], atol=1e-9)
    poses = zoom_path(((2, 6.0, 2.0), (3, 2.0, 2.0)), (0, 0, 1))
    distances = [-(-p[:, :3].T @ p[:, 3])[1] for p in poses]
    np.testing.assert_allclose(distances, [6, 6, 2, 2, 2])


def test_views_agree_with_each_other(scene: SyntheticScene) -> None:
    """A pixel lifted by its depth and projected into a neighbour meets the neighbour's depth and colour."""
    a, b = 3, 4
    va, vb = scene.views[a], scene.views[b]
    y, x = np.mgrid[4:116:3, 4:156:3].reshape(2, -1)
    z = scene.depths[a][y, x]
    local = np.column_stack([x, y, np.ones(len(x))]) @ np.linalg.inv(va.K).T * z[:, None]
    world = (local - va.cam_from_world[:, 3]) @ va.cam_from_world[:, :3]
    other = world @ vb.cam_from_world[:, :3].T + vb.cam_from_world[:, 3]
    image = other @ vb.K.T
    u, v = (image[:, :2] / image[:, 2:]).T
    inside = (z > 0) & (u > 1) & (u < 158) & (v > 1) & (v < 118)
    there = scene.depths[b][np.rint(v[inside]).astype(int), np.rint(u[inside]).astype(int)]
    agree = np.abs(there - other[inside, 2]) < 0.03
    assert agree.mean() > 0.85
    colors = cv2.remap(
        scene.images[b], u.astype(np.float32)[None], v.astype(np.float32)[None], cv2.INTER_LINEAR
    )[0]
    p = scene.images[a][y, x][inside][agree].astype(float).ravel()
    q = colors[inside][agree].astype(float).ravel()
    assert np.corrcoef(p, q)[0, 1] > 0.9


def test_scene_is_reproducible(scene: SyntheticScene) -> None:
    again = make_scene("demo", (160, 120), coarseness=4)
    for p, q in zip(scene.images, again.images, strict=True):
        np.testing.assert_array_equal(p, q)
    assert (
        np.stack(scene.images) != np.stack(make_scene("demo", (160, 120), seed=1, coarseness=4).images)
    ).mean() > 0.5


def test_scene_on_disk(scene: SyntheticScene, tmp_path: Path) -> None:
    write_scene(scene, tmp_path)
    views = read_cameras_json(tmp_path / "cameras.json")
    assert sorted(views) == sorted(path.name for path in (tmp_path / "images").iterdir())
    for image, view, depth in zip(scene.images, scene.views, scene.depths, strict=True):
        np.testing.assert_allclose(views[view.name].cam_from_world, view.cam_from_world)
        np.testing.assert_allclose(views[view.name].K, view.K)
        file = Image.open(tmp_path / "images" / view.name)
        np.testing.assert_array_equal(np.asarray(file), image)
        focal_35mm = file.getexif().get_ifd(0x8769)[0xA405]
        assert focal_35mm / 36 * view.width == pytest.approx(view.K[0, 0], rel=0.03)
        with np.load(tmp_path / "truth" / "depth" / f"{Path(view.name).stem}.npz") as data:
            np.testing.assert_array_equal(data["depth"], depth)
    assert "cam = R" in json.loads((tmp_path / "cameras.json").read_text())["convention"]


def test_sensor_noise_has_the_stated_variance() -> None:
    sensor = Sensor(blur=0, full_well=2000, read_noise=10, jpeg_quality=0)
    level = 0.5
    rgb = photograph(np.full((200, 200, 3), level, np.float32), sensor, 1.0, 0)
    linear = (rgb / 255.0) ** 2.2
    assert linear.mean() == pytest.approx(level, rel=0.01)
    # Shot and read noise, plus the rounding to 8 bits.
    step = 2.2 * level ** (1.2 / 2.2) / 255
    expected = np.sqrt((level * 2000 + 100) / 2000**2 + step**2 / 12)
    assert linear.std() == pytest.approx(expected, rel=0.03)
    brighter = photograph(np.full((50, 50, 3), level, np.float32), sensor, 1.5, 0)
    assert ((brighter / 255.0) ** 2.2).mean() == pytest.approx(0.75, rel=0.01)


def test_sensor_blur_is_a_gaussian() -> None:
    radiance = np.zeros((41, 41, 3), np.float32)
    radiance[20, 20] = 20.0
    rgb = photograph(radiance, Sensor(blur=2.0, full_well=0, jpeg_quality=0), 1.0, 0)
    linear = (rgb[..., 0] / 255.0) ** 2.2
    x = np.arange(41) - 20
    assert np.sqrt((linear.sum(axis=0) * x**2).sum() / linear.sum()) == pytest.approx(2.0, rel=0.05)


def test_closed_surfaces_are_closed_and_face_outwards() -> None:
    for mesh in (knot_mesh(120, 24), superellipsoid_mesh((0, 0, 0), (1, 1, 1), 1.0, 60, 80)):
        a, b, c = (mesh.vertices[mesh.faces[:, i]].astype(float) for i in range(3))
        volume = np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6
        assert volume > 0
    # The unit sphere's volume, but for its facets.
    assert volume == pytest.approx(4 / 3 * np.pi, rel=0.01)
    faces = knot_mesh(120, 24).faces
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()


def test_grid_faces_cover_the_grid_once() -> None:
    vertices = np.stack(np.meshgrid(np.arange(5.0), np.arange(4.0)), -1).reshape(-1, 2)
    faces = grid_faces(4, 5)
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    area = 0.5 * ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
    np.testing.assert_allclose(area, 0.5)
    assert area.sum() == 12


def test_presets() -> None:
    assert len(pinhole_views(arc_path(3, (0, 0, 0), 1, 90, 0), 8, 6)) == 3
    assert np.isfinite(object_mesh().vertices).all()
    with pytest.raises(UsageError, match="demo"):
        make_scene("castle")


def test_demo_is_made_once(tmp_path: Path, scene: SyntheticScene) -> None:
    write_scene(scene, tmp_path)
    stamp = (tmp_path / "cameras.json").stat().st_mtime_ns
    assert make_demo(tmp_path) == tmp_path / "images"
    assert (tmp_path / "cameras.json").stat().st_mtime_ns == stamp


def test_photos_of_the_demo_are_what_the_renderer_makes(tmp_path: Path) -> None:
    """The files of the package, their cameras and the surface fit a view that is rendered now."""
    photos = make_demo(tmp_path)
    views = read_cameras_json(tmp_path / "cameras.json")
    assert sorted(views) == sorted(one.name for one in photos.iterdir())
    view = views["0003.jpg"]
    mesh = mesh_from_open3d(read_mesh(tmp_path / "truth" / "mesh.ply"))
    rendered, seen = render_vertex_colors(mesh, view)
    photo = cv2.imread(str(photos / view.name))[..., ::-1]
    assert seen.mean() > 0.9
    # Unlit colours of vertices: the grain is the photo's, the light is not.
    grain = [
        one.astype(np.float32).mean(axis=-1)
        - cv2.GaussianBlur(one.astype(np.float32).mean(axis=-1), (0, 0), 8)
        for one in (rendered, photo)
    ]
    shifts = [(x, y) for x in (-3, 0, 3) for y in (-3, 0, 3)]
    alike = {
        shift: np.corrcoef(grain[0][seen], np.roll(grain[1], shift, axis=(1, 0))[seen])[0, 1]
        for shift in shifts
    }
    assert max(alike, key=alike.__getitem__) == (0, 0)


def test_cards_are_complete() -> None:
    cards = load_cards()
    assert {"fountain-P11", "Herz-Jesus-P8", "entry-P10", "sceaux_castle", "lund_door"} <= set(cards)
    for card in cards.values():
        assert card.licence
        assert card.origin
        assert {"images", "mesh"} & set(card.layout)


def test_cards_name_what_is_there(shared_data: Path) -> None:
    card = load_card("fountain-P11")
    assert len(list((card.folder(shared_data) / card.layout["images"]).iterdir())) == 11
    assert (card.folder(shared_data) / card.layout["cameras"]).is_file()


def test_bad_card(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fountain-P11"):
        load_card("atlantis")
    (tmp_path / "x.toml").write_text("name = 'x'\n")
    with pytest.raises(UsageError, match=r"x\.toml.*origin"):
        load_cards(tmp_path)
