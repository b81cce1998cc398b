"""``recon evaluate`` on files of recon and of other tools, and on input that cannot be judged."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from recon.cli.evaluate import evaluate
from recon.errors import ReconError, UsageError
from recon.io.flo import write_flo
from tests.support.evaluation_run import (
    NAMES,
    RUN_FROM_TRUTH,
    Scene,
    make_run,
    make_scene,
    write_mesh_ply,
    write_model,
)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("scene")
    scene = make_scene(folder)
    images = []
    for view in scene.views:
        K, pose = view.K, view.cam_from_world
        images.append(
            {
                "name": view.name, "width": view.width, "height": view.height, "fx": K[0, 0], "fy": K[1, 1],
                "cx": K[0, 2], "cy": K[1, 2], "R": pose[:, :3].tolist(), "t": pose[:, 3].tolist(),
            }
        )  # fmt: skip
    (folder / "cameras.json").write_text(json.dumps({"world_unit": "metre", "images": images}))
    (folder / "truth" / "depth").mkdir(parents=True)
    (folder / "mesh.ply").rename(folder / "truth" / "mesh.ply")
    for name, depth in zip(NAMES, scene.depths, strict=True):
        np.savez(folder / "truth" / "depth" / f"{Path(name).stem}.npz", depth=depth)
    return scene


@pytest.fixture(scope="module")
def truth(scene: Scene) -> Path:
    return scene.truth.images.parent


@pytest.fixture(scope="module")
def run(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(scene, tmp_path_factory.mktemp("run"))


def call(*arguments: object) -> dict[str, float]:
    """The figures that a command prints; what it raises is raised."""
    result = CliRunner().invoke(evaluate, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    figures = {}
    for line in result.output.splitlines():
        if not line.startswith("note:"):
            name, value = line.split()[:2]
            figures[name] = float(value)
    return figures


def test_poses_from_every_form(run: Path, truth: Path, tmp_path: Path) -> None:
    figures = call("poses", run, "--truth", truth)
    assert figures["registered.share"] == 1.0
    assert figures["poses.mean_error"] < 1e-6
    assert figures["two_view.auc_1"] > 0.999
    assert call("poses", run / "sparse" / "0", "--truth", truth / "cameras.json")["poses.auc_5"] > 0.999
    # One COLMAP model against another, binary against text.
    import pycolmap

    binary = tmp_path / "binary"
    binary.mkdir()
    pycolmap.Reconstruction(str(run / "sparse" / "0")).write(str(binary))
    assert call("poses", binary, "--truth", run / "sparse" / "0")["poses.max_error"] < 1e-9


def test_poses_as_json_with_a_miss(scene: Scene, truth: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "model", scene.views[:4])
    call("poses", tmp_path / "model", "--truth", truth, "--json", tmp_path / "out.json")
    data = json.loads((tmp_path / "out.json").read_text())
    assert data["metrics"]["registered.share"] == 0.8
    assert data["notes"] == ["not registered: 0004.png"]
    assert {"a": "0000.png", "b": "0004.png", "value": None} in data["per_pair"]["poses.error"]
    assert len(data["curves"]["poses.error"]["x"]) == len(data["curves"]["poses.error"]["y"])
    assert data["intervals"]["poses.mean_error"]["count"] == 4


def test_bad_input_for_poses(run: Path, truth: Path, tmp_path: Path) -> None:
    with pytest.raises(ReconError, match="no COLMAP model"):
        call("poses", truth, "--truth", truth)
    with pytest.raises(ReconError, match="no such folder"):
        call("poses", tmp_path / "none", "--truth", truth)
    with pytest.raises(UsageError, match="no such file or folder"):
        call("poses", run, "--truth", tmp_path / "none")
    with pytest.raises(ReconError, match="holds no cameras"):
        call("poses", run, "--truth", truth / "truth" / "mesh.ply")
    document = json.loads((truth / "cameras.json").read_text())
    for image in document["images"]:
        image["name"] = "x" + image["name"]
    (tmp_path / "cameras.json").write_text(json.dumps(document))
    with pytest.raises(ReconError, match=r"share no photo name.*0000\.png.*x0000\.png"):
        call("poses", run, "--truth", tmp_path / "cameras.json")
    with pytest.raises(ReconError, match=r"out\.json: cannot be written"):
        call("poses", run, "--truth", truth, "--json", tmp_path / "none" / "out.json")


def test_surface_of_a_run_and_of_files(scene: Scene, run: Path, truth: Path, tmp_path: Path) -> None:
    figures = call("surface", run, "--truth", truth, "--thresholds", "0.002,0.02")
    assert figures["mesh.f_2mm"] > 0.99
    assert figures["points.recall_20mm"] == 1.0
    assert figures["tracks.accuracy_share_2mm"] == 1.0
    points = call("surface", run, "--truth", truth, "--what", "points", "--thresholds", "0.02")
    assert not any(name.startswith("mesh.") for name in points)
    # A mesh of another tool in its own world, aligned by its cameras; and one in the truth's world.
    cloud = call(
        "surface", run / "mesh" / "mesh.ply", "--truth", truth, "--cameras", run, "--thresholds", "0.002"
    )
    assert cloud["mesh.f_2mm"] > 0.99
    write_mesh_ply(tmp_path / "there.ply", scene.mesh)
    direct = call("surface", tmp_path / "there.ply", "--truth", truth / "truth" / "mesh.ply")
    assert direct["mesh.chamfer"] < 1e-6
    with_views = call(
        "surface", tmp_path / "there.ply", "--truth", truth / "truth" / "mesh.ply", "--views", truth / "cameras.json"
    )  # fmt: skip
    assert with_views["mesh.judged_share"] <= 1.0
    assert with_views["mesh.chamfer"] < 1e-6


def test_bad_input_for_surfaces(scene: Scene, run: Path, truth: Path, tmp_path: Path) -> None:
    mesh = truth / "truth" / "mesh.ply"
    millimetres = tmp_path / "mm.ply"
    vertices = (scene.mesh.vertices * 1000).astype(np.float32)
    write_mesh_ply(millimetres, type(scene.mesh)(vertices, scene.mesh.faces))
    with pytest.raises(ReconError, match=r"mm\.ply.*the units differ by about 0\.001.*--scale"):
        call("surface", millimetres, "--truth", mesh)
    assert call("surface", millimetres, "--truth", mesh, "--scale", "0.001")["mesh.chamfer"] < 1e-6
    empty = tmp_path / "empty.ply"
    header = (
        "ply\nformat ascii 1.0\nelement vertex {}\nproperty float x\nproperty float y\nproperty float z\n"
    )
    empty.write_text(header.format(0) + "end_header\n")
    with pytest.raises(ReconError, match=r"empty\.ply: holds no points"):
        call("surface", empty, "--truth", mesh)
    with pytest.raises(ReconError, match=r"empty\.ply: .*no points"):
        call("surface", millimetres, "--truth", empty)
    nan = tmp_path / "nan.ply"
    nan.write_text(header.format(1) + "end_header\nnan 0 0\n")
    with pytest.raises(ReconError, match=r"nan\.ply: holds no points"):
        call("surface", nan, "--truth", mesh)
    single = tmp_path / "single.ply"
    single.write_text(header.format(1) + "end_header\n1 0 0\n")
    with pytest.raises(ReconError, match=r"mesh\.ply: no surface could be judged against .*single\.ply"):
        call("surface", mesh, "--truth", single)
    with pytest.raises(ReconError, match=r"nan\.ply holds no triangles.*--what points"):
        call("surface", nan, "--truth", mesh, "--what", "mesh")
    with pytest.raises(ReconError, match="neither a scan nor a mesh"):
        call("surface", run, "--truth", run / "sparse" / "0")
    with pytest.raises(ReconError, match="usual names"):
        call("surface", run / "sparse", "--truth", mesh)
    for option, value in (
        ("--what", "all of it"),
        ("--thresholds", "0.1,x"),
        ("--thresholds", "0"),
        ("--scale", "0"),
    ):
        with pytest.raises(UsageError, match=option):
            call("surface", run, "--truth", truth, option, value)
    with pytest.raises(UsageError, match=r"a surface is one of"):
        call("surface", run / "photos.json", "--truth", mesh)


def test_depth_of_a_run_and_of_one_file(scene: Scene, run: Path, truth: Path, tmp_path: Path) -> None:
    figures = call("depth", run, "--truth", truth, "--json", tmp_path / "out.json")
    assert figures["depth.coverage"] == 1.0
    assert figures["depth.relative_error"] < 1e-5
    assert len(json.loads((tmp_path / "out.json").read_text())["per_photo"]["depth.coverage"]) == 5
    # One depth map as COLMAP writes it, with half of it gone and the rest a hundredth too far.
    depth = scene.depths[0] * 1.01
    depth[:, ::2] = 0
    height, width = depth.shape
    one = tmp_path / "a.png.geometric.bin"
    one.write_bytes(f"{width}&{height}&1&".encode() + struct.pack(f"<{depth.size}f", *depth.ravel()))
    known = truth / "truth" / "depth" / "0000.npz"
    figures = call("depth", one, "--truth", known)
    assert figures["depth.coverage"] == pytest.approx(0.5, abs=0.01)
    assert figures["depth.relative_error"] == pytest.approx(0.01, rel=1e-3)
    assert figures["depth.within_5pct_share"] == 1.0
    np.save(tmp_path / "mm.npy", scene.depths[0] * 1000)
    with pytest.raises(ReconError, match=r"mm\.npy.*1000 times.*--scale 0\.001"):
        call("depth", tmp_path / "mm.npy", "--truth", known)
    assert call("depth", tmp_path / "mm.npy", "--truth", known, "--scale", "0.001")["depth.coverage"] == 1.0
    np.save(tmp_path / "none.npy", np.zeros_like(depth))
    with pytest.raises(ReconError, match=r"none\.npy: no pixel has a depth"):
        call("depth", tmp_path / "none.npy", "--truth", known)
    with pytest.raises(ReconError, match="no depth is known"):
        call("depth", one, "--truth", tmp_path / "none.npy")
    np.save(tmp_path / "square.npy", np.ones((8, 8)))
    with pytest.raises(ReconError, match="another picture"):
        call("depth", tmp_path / "square.npy", "--truth", known)
    with pytest.raises(ReconError, match="holds no depth maps"):
        call("depth", run, "--truth", run / "sparse" / "0")


def test_depth_maps_of_colmap(scene: Scene, truth: Path, tmp_path: Path) -> None:
    """A dense folder as COLMAP leaves it, in its own world and scale."""
    write_model(tmp_path / "sparse", scene.views)
    maps = tmp_path / "stereo" / "depth_maps"
    maps.mkdir(parents=True)
    for name, depth in zip(NAMES[:4], scene.depths, strict=False):
        values = depth * RUN_FROM_TRUTH.scale
        data = f"{depth.shape[1]}&{depth.shape[0]}&1&".encode() + values.astype("<f4").tobytes()
        (maps / f"{name}.geometric.bin").write_bytes(data)
    figures = call("depth", tmp_path, "--truth", truth)
    assert figures["depth.coverage"] == pytest.approx(0.8)
    assert figures["depth.median_error"] < 1e-5


def test_matches_of_a_run_and_of_a_database(run: Path, truth: Path, tmp_path: Path) -> None:
    figures = call("matches", run, "--truth", truth)
    assert figures["matches.precision_1px"] == 1.0
    assert figures["matches.endpoint_within_1px"] == 1.0
    with pytest.raises(ReconError, match=r"neither pairs\.json nor database\.db"):
        call("matches", tmp_path, "--truth", truth)
    (tmp_path / "database.db").write_text("text " * 100)
    with pytest.raises(ReconError, match="not a COLMAP database"):
        call("matches", tmp_path, "--truth", truth)
    with pytest.raises(ReconError, match="holds no cameras"):
        call("matches", run, "--truth", truth / "truth" / "mesh.ply")


def test_flow_files_and_folders(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(-3, 3, (6, 8, 2)).astype(np.float32)
    for name, error in (("one", 1.0), ("two", 4.0)):
        for side, flow in (("truth", truth), ("found", truth + np.array([error, 0], np.float32))):
            (tmp_path / side / name).mkdir(parents=True)
            write_flo(tmp_path / side / name / "flow10.flo", flow)
    one = call("flow", tmp_path / "found/two/flow10.flo", "--truth", tmp_path / "truth/two/flow10.flo")
    assert one["flow.endpoint_px"] == pytest.approx(4.0)
    assert one["flow.outliers_3px"] == 1.0
    assert one["flow.outliers_5px"] == 0.0
    out = tmp_path / "out.json"
    both = call("flow", tmp_path / "found", "--truth", tmp_path / "truth", "--json", out)
    assert both["flow.endpoint_px"] == pytest.approx(2.5)
    assert json.loads(out.read_text())["per_photo"]["flow.endpoint_px"]["one/flow10.flo"] == pytest.approx(
        1.0
    )


def test_bad_input_for_flow(run: Path, truth: Path, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.flo", tmp_path / "bad.flo"
    flow = np.zeros((4, 5, 2), np.float32)
    write_flo(good, flow)
    data = bytearray(good.read_bytes())
    data[12:16] = struct.pack("<f", float("nan"))
    bad.write_bytes(data)
    with pytest.raises(ReconError, match=r"bad\.flo: 5% .*NaN.*--missing zero.*--missing skip"):
        call("flow", bad, "--truth", good)
    assert call("flow", bad, "--truth", good, "--missing", "zero")["flow.outliers_5px"] == pytest.approx(0.05)
    assert call("flow", bad, "--truth", good, "--missing", "skip")["flow.outliers_5px"] == 0.0
    small = tmp_path / "small.flo"
    write_flo(small, flow[:2])
    with pytest.raises(ReconError, match=r"small\.flo is 5x2 pixels.*5x4"):
        call("flow", small, "--truth", good)
    unknown = tmp_path / "unknown.flo"
    write_flo(unknown, np.full((4, 5, 2), np.nan, np.float32))
    with pytest.raises(ReconError, match=r"unknown\.flo: no flow is known"):
        call("flow", good, "--truth", unknown)
    with pytest.raises(ReconError, match="known where that of"):
        call("flow", unknown, "--truth", good, "--missing", "skip")
    with pytest.raises(UsageError, match="--missing never"):
        call("flow", good, "--truth", good, "--missing", "never")
    with pytest.raises(UsageError, match=r"two \.flo files"):
        call("flow", good, "--truth", tmp_path)
    with pytest.raises(UsageError, match="no such file"):
        call("flow", tmp_path / "none.flo", "--truth", good)
    with pytest.raises(ReconError, match="share no file name"):
        call("flow", run / "sparse", "--truth", tmp_path)
    with pytest.raises(ReconError, match="no known flow"):
        call("flow", run, "--truth", truth)


def test_everything_of_a_run(run: Path, truth: Path, tmp_path: Path) -> None:
    figures = call("run", run, "--truth", truth)
    for name in (
        "poses.auc_5",
        "two_view.auc_5",
        "matches.coverage",
        "tracks.points",
        "depth.coverage",
        "cost.seconds",
    ):
        assert name in figures
    without = call("run", run)
    assert "photo_consistency" in without
    with pytest.raises(ReconError, match="nothing to judge"):
        call("run", tmp_path)


def test_scene_still_works(run: Path, truth: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    result = CliRunner().invoke(evaluate, ["scene", str(copy), "--scene", str(truth)])
    assert result.exit_code == 0, result.output
    assert "cameras 5/5" in result.output
    assert "mesh: distance to the truth" in result.output
