"""recon render on a small finished run."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from recon.cli import main
from recon.exports.scene import Scene, reconstruction_from_scene
from tests.support.exports_scene import camera_of, read_rgb, write_workspace

SMALL = ["--size", "160x90", "--samples", "1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Scene]:
    root = tmp_path_factory.mktemp("render") / "mein lauf ü"
    return root, write_workspace(root, [camera_of("OPENCV")])


def render(root: Path, out: Path, *more: str) -> int:
    return main(["render", str(root), "--out", str(out), *SMALL, *more])


def test_a_film_of_an_orbit(
    run: tuple[Path, Scene], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "neu" / "film ü.mp4"
    assert render(run[0], out, "--fps", "10", "--seconds", "1.2", "--threads", "2") == 0
    assert "12 pictures, 1.2 s" in capsys.readouterr().out
    film = cv2.VideoCapture(str(out))
    found = []
    while (answer := film.read())[0]:
        found.append(answer[1].astype(int))
    assert len(found) == 12
    assert found[0].shape == (90, 160, 3)
    assert np.abs(found[0] - found[3]).mean() > 0.5
    assert [path.name for path in out.parent.iterdir()] == [out.name]


@pytest.mark.parametrize("layer", ["mesh", "dense", "sparse"])
def test_every_layer_is_drawn(run: tuple[Path, Scene], tmp_path: Path, layer: str) -> None:
    plain, with_cameras = tmp_path / "a.png", tmp_path / "b.png"
    assert render(run[0], plain, "--layer", layer, "--distance", "2") == 0
    assert (read_rgb(plain) != 255).any(axis=2).mean() > 0.001
    assert render(run[0], with_cameras, "--layer", layer, "--cameras", "--background", "202020") == 0
    rgb = read_rgb(with_cameras)
    assert rgb[0, 0].tolist() == [32, 32, 32]
    assert (rgb == [24, 92, 168]).all(axis=2).sum() > 30  # frames


def test_clay_has_no_colour(run: tuple[Path, Scene], tmp_path: Path) -> None:
    assert render(run[0], tmp_path / "clay.png", "--shaded", "--layer", "mesh") == 0
    rgb = read_rgb(tmp_path / "clay.png").astype(int)
    on = (rgb != 255).any(axis=2)
    assert on.mean() > 0.005
    assert (np.ptp(rgb[on], axis=1) < 25).all()


def test_stills_are_numbered_and_differ(run: tuple[Path, Scene], tmp_path: Path) -> None:
    assert render(run[0], tmp_path / "bilder", "--stills", "3", "--trajectory", "photos") == 0
    names = sorted(path.name for path in (tmp_path / "bilder").iterdir())
    assert names == ["0000.png", "0001.png", "0002.png"]
    first, last = (read_rgb(tmp_path / "bilder" / name).astype(int) for name in (names[0], names[-1]))
    assert np.abs(first - last).mean() > 0.5
    for style in ("front", "oblique", "top"):
        assert render(run[0], tmp_path / f"{style}.jpg", "--trajectory", style) == 0
        assert (read_rgb(tmp_path / f"{style}.jpg") < 230).any()


def test_a_picture_at_some_place_of_the_way(run: tuple[Path, Scene], tmp_path: Path) -> None:
    """Ends and middle of the way are the pictures that three stills give."""
    arguments = ("--layer", "mesh")
    assert render(run[0], tmp_path / "all", "--stills", "3", *arguments) == 0
    for index, at in enumerate(("0", "0.5", "1")):
        assert render(run[0], tmp_path / "one.png", "--at", at, *arguments) == 0
        one, other = (
            read_rgb(path).astype(int)
            for path in (tmp_path / "one.png", tmp_path / "all" / f"{index:04d}.png")
        )
        assert np.abs(one - other).max() <= 1


def test_poses_of_files_agree(run: tuple[Path, Scene], tmp_path: Path) -> None:
    """The same poses as TUM text, as nerfstudio's JSON and as a COLMAP model give the same pictures."""
    from scipy.spatial.transform import Rotation

    root, scene = run
    rows = []
    for index, view in enumerate(scene.views):
        quaternion = Rotation.from_matrix(view.cam_from_world[:, :3].T).as_quat()
        rows.append(" ".join(f"{value:.12g}" for value in (float(index), *view.center, *quaternion)))
    (tmp_path / "way.txt").write_text("\n".join(rows))
    model = tmp_path / "model"
    model.mkdir()
    reconstruction_from_scene(scene).write_binary(model)
    assert main(["export", str(root), "--to", "nerfstudio", "--out", str(tmp_path / "nerf")]) == 0
    pictures = []
    for index, way in enumerate((tmp_path / "way.txt", model, tmp_path / "nerf" / "transforms.json")):
        out = tmp_path / f"{index}"
        assert render(root, out, "--stills", "4", "--trajectory", str(way), "--layer", "mesh") == 0
        pictures.append(np.stack([read_rgb(path).astype(int) for path in sorted(out.iterdir())]))
    assert (pictures[0] != 255).mean() > 0.005
    for other in pictures[1:]:
        assert (np.abs(other - pictures[0]).max(axis=-1) > 3).mean() < 0.002


def test_a_mesh_by_itself(run: tuple[Path, Scene], tmp_path: Path) -> None:
    assert render(run[0] / "mesh" / "mesh.ply", tmp_path / "a.png") == 0
    share = (read_rgb(tmp_path / "a.png") != 255).any(axis=2).mean()
    assert 0.03 < share < 0.8
    assert render(run[0] / "dense" / "points.ply", tmp_path / "b.png") == 0


def test_what_cannot_be_is_said(
    run: tuple[Path, Scene], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = run[0]
    (tmp_path / "bad.txt").write_text("1 2 3\n")
    (tmp_path / "bad.json").write_text(json.dumps({"frames": []}))
    lens = {"w": 96, "h": 72, "fl_x": 90, "fl_y": 90, "cx": 48, "cy": 36}
    for name, matrix in (("flat.json", [1, 2]), ("mirror.json", [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 0]])):
        frames = [{"file_path": "a.png", "transform_matrix": matrix}] * 2
        (tmp_path / name).write_text(json.dumps({**lens, "frames": frames}))
    cases = [
        (2, [tmp_path / "a.avi"], ".mp4"),
        (2, [tmp_path / "folder"], "--stills"),
        (2, [tmp_path / "a.mp4", "--stills", "3"], "leave out --stills"),
        (2, [tmp_path / "a.png", "--stills", "3"], "a folder"),
        (2, [tmp_path / "a.mp4", "--trajectory", "front"], "one picture"),
        (2, [tmp_path / "a.mp4", "--size", "161x90", "--seconds", "0.1"], "odd side"),
        (2, [tmp_path / "a.mp4", "--at", "0.5"], "single picture"),
        (2, [tmp_path / "a.png", "--size", "big"], "WIDTHxHEIGHT"),
        (2, [tmp_path / "a.png", "--background", "grey-ish"], "RRGGBB"),
        (2, [tmp_path / "a.png", "--layer", "voxels"], "textured, mesh, dense, sparse"),
        (2, [tmp_path / "a.png", "--layer", "dense", "--shaded"], "--shaded"),
        (2, [tmp_path / "a.png", "--trajectory", "nowhere.txt"], "no such file"),
        (1, [tmp_path / "a.png", "--trajectory", str(tmp_path / "bad.txt")], "line 1"),
        (1, [tmp_path / "a.png", "--trajectory", str(tmp_path / "bad.json")], "no frames"),
        (1, [tmp_path / "a.png", "--trajectory", str(tmp_path / "flat.json")], "flat.json: cannot be read"),
        (
            1,
            [tmp_path / "a.png", "--trajectory", str(tmp_path / "mirror.json")],
            "mirror.json: holds no trajectory",
        ),
        (1, [tmp_path / "a.png", "--layer", "textured"], "stage texture"),
    ]
    for code, arguments, message in cases:
        out, *more = arguments
        assert render(root, Path(str(out)), *[str(one) for one in more]) == code, arguments
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert error.count("\n") == 1
    assert main(["render", str(tmp_path / "none"), "--out", str(tmp_path / "a.png")]) == 2
    assert render(root / "mesh" / "mesh.ply", tmp_path / "a.png", "--trajectory", "photos") == 2
    assert "no cameras" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.png"))
