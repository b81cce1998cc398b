"""Marking control points by hand: what the cameras propose, against exact projections, and what is kept in the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from recon.exports.control import read_control_points
from recon.live.marking import Marking
from recon.live.picking import Surfaces
from recon.live.serving import free_port
from recon.live.viewer import LiveViewer
from recon.render.scene import ViewScene
from recon.render.scene_files import open_view_scene
from tests.support import live_scene

PLACE = np.array([-0.6, float(live_scene.wall_y(np.array(-0.6), np.array(0.2))), 0.2])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("marks") / "run"
    live_scene.write_run(root)
    return root


@pytest.fixture
def scene(folder: Path, tmp_path: Path) -> ViewScene:
    """The run with photos that are three times as large as the run saw them, and a file of marks of its own."""
    opened = open_view_scene(folder)
    large = tuple(replace(photo, full_size=(960, 720)) for photo in opened.photos)
    return replace(opened, photos=large, marks=tmp_path / "marks.csv")


def seen(scene: ViewScene, row: int) -> np.ndarray:
    pixel, _ = scene.photos[row].view.project((PLACE - scene.offset)[None])
    return np.asarray(pixel[0])


def ray(scene: ViewScene, row: int) -> np.ndarray:
    away = PLACE - scene.offset - scene.photos[row].view.center
    return np.asarray(away / np.linalg.norm(away))


def test_two_marks_propose_the_others(scene: ViewScene) -> None:
    marking, surfaces = Marking(scene), Surfaces(scene)
    assert marking.mark_ray("A", 0, ray(scene, 0))
    assert marking.mark_ray("A", 2, ray(scene, 2))
    found = {one.photo: one for one in marking.of("A", surfaces)}
    assert {row for row, one in found.items() if one.marked} == {0, 2}
    assert len(found) >= 4
    for row, one in found.items():
        np.testing.assert_allclose(one.xy, seen(scene, row), atol=0.01)
    assert found[0].error is not None
    assert found[0].error < 0.01
    np.testing.assert_allclose(marking.place("A", surfaces), PLACE - scene.offset, atol=1e-4)


def test_one_mark_proposes_by_the_surface(scene: ViewScene) -> None:
    marking, surfaces = Marking(scene), Surfaces(scene)
    marking.mark_ray("A", 1, ray(scene, 1))
    found = marking.of("A", surfaces)
    assert len(found) > 2
    for one in found:
        np.testing.assert_allclose(one.xy, seen(scene, one.photo), atol=0.5)
    assert marking.of("B", surfaces) == []
    marking.point_at("B", PLACE - scene.offset)
    proposed = marking.of("B", surfaces)
    assert proposed
    assert not any(one.marked for one in proposed)


def test_marks_are_kept_in_pixels_of_the_photo(scene: ViewScene) -> None:
    assert scene.marks is not None
    marking = Marking(scene)
    assert marking.next_name() == "P1"
    marking.mark("P1", 3, (10.0, 20.0))
    kept = read_control_points(scene.marks).sightings["P1"]
    assert kept == [(scene.photos[3].name, 31.0, 61.0)]
    marking.nudge("P1", 3, 0.5, -0.5)
    assert read_control_points(scene.marks).sightings["P1"] == [(scene.photos[3].name, 31.5, 60.5)]
    again = Marking(scene)
    assert again.names == ["P1"]
    assert again.next_name() == "P2"
    again.remove("P1", 3)
    assert again.names == []
    assert read_control_points(scene.marks).sightings == {}


def test_clicks_mark_in_the_photo_and_on_the_surface(scene: ViewScene) -> None:
    viewer = LiveViewer(scene, "127.0.0.1", free_port("127.0.0.1", 18_750))
    try:
        camera = SimpleNamespace(fov=0.8)
        viewer.clients[0] = SimpleNamespace(  # type: ignore[assignment]
            camera_clicked_at=-np.inf, cloud=None, handle=SimpleNamespace(camera=camera)
        )

        def click(row: int) -> None:
            viewer.scene_clicked(
                SimpleNamespace(
                    client_id=0, ray_origin=scene.photos[row].view.center, ray_direction=ray(scene, row)
                )
            )

        click(0)
        assert viewer.marking.names == []  # not switched on
        viewer.panel.control_on.value = True
        viewer.panel.name_control("Corner")
        for row in (0, 2):
            viewer.photo = row
            click(row)
        found = viewer.marking.of("Corner", viewer.surfaces)
        assert sum(one.marked for one in found) == 2
        assert "marked in 2 photos" in viewer.panel.control_text.content
        other = next(one.photo for one in found if not one.marked)
        viewer.photo = other
        viewer.mark("accept")
        viewer.mark("→")
        assert sum(one.marked for one in viewer.marking.of("Corner", viewer.surfaces)) == 3
        assert scene.marks is not None
        x = {photo: x for photo, x, _ in read_control_points(scene.marks).sightings["Corner"]}
        assert x[scene.photos[other].name] == pytest.approx(
            3 * (seen(scene, other)[0] + 0.5) - 0.5 + 0.5, abs=0.05
        )
        viewer.mark("remove")
        assert sum(one.marked for one in viewer.marking.of("Corner", viewer.surfaces)) == 2
        viewer.mark("new")
        viewer.photo = None
        click(0)
        assert viewer.marking.of(viewer.panel.marking, viewer.surfaces)
    finally:
        viewer.clients.clear()
        viewer.stop()
