"""All metrics of a run against the errors that were put into it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recon.core.undistort import distort_points
from recon.datasets.ground_truth import TruthPair, true_camera
from recon.errors import ReconError
from recon.evaluation.bootstrap import known, paired_difference, statistic
from recon.evaluation.cost import evaluate_cost
from recon.evaluation.metrics import describe
from recon.evaluation.repeats import predict_left_out, repeatability_of_runs
from recon.evaluation.report import evaluation_thresholds
from recon.evaluation.run import evaluate_run
from recon.evaluation.tracks import evaluate_tracks
from recon.run.folder import RunFolder, SparseModel
from tests.support.evaluation_run import (
    NAMES,
    RUN_FROM_TRUTH,
    Scene,
    make_run,
    make_scene,
    relative_pose_of,
    true_flow,
    write_mesh_ply,
    write_model,
)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def exact(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(scene, tmp_path_factory.mktemp("exact"))


@pytest.fixture
def run(exact: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(exact, tmp_path / "run"))


def test_a_run_without_errors(scene: Scene, exact: Path) -> None:
    report = evaluate_run(exact, scene.truth)
    rows = report.rows()
    assert rows["registered.share"] == 1.0
    assert rows["poses.mean_error"] < 1e-6
    assert rows["poses.robust_mean_error"] < 1e-6
    assert rows["poses.rotation_mean"] < 1e-5
    for kind in ("poses", "two_view"):
        assert rows[f"{kind}.auc_1"] > 0.999
    # Flow on disk is off by up to 1/64 px.
    assert rows["matches.precision_1px"] == 1.0
    assert rows["matches.epipolar_median_px"] < 1 / 64
    assert rows["matches.endpoint_median_px"] < 1 / 64
    assert rows["depth.coverage"] == 1.0
    assert rows["depth.relative_error"] < 1e-5
    assert rows["depth.correct_0.1pct_share"] == 1.0
    assert rows["tracks.points"] == 3
    assert rows["tracks.mean_length"] == 5.0
    assert rows["tracks.reprojection_px"] < 1e-5
    # The points are 20 mm apart: their middle is up to 14 mm from them.
    assert rows["points.precision_2mm"] == 1.0
    assert rows["points.recall_20mm"] == 1.0
    assert rows["points.recall_10mm"] == pytest.approx(np.pi / 4, abs=0.02)
    assert rows["mesh.f_2mm"] == pytest.approx(1.0, abs=2e-3)
    assert rows["mesh.chamfer"] < 1e-5
    assert rows["photo_consistency"] > 0.97
    assert rows["cost.seconds"] == 6.0
    assert rows["cost.cpu_seconds"] == 6.0
    assert rows["cost.peak_memory_mb"] == 250.0
    assert rows["cost.seconds_per_pair"] == pytest.approx(4.0 / 7)
    assert rows["cost.bytes_on_disk"] == sum(p.stat().st_size for p in exact.rglob("*") if p.is_file())
    assert all(isinstance(value, float) for value in rows.values())
    assert {describe(name).name for name in rows} == set(rows)
    assert report.curves["mesh.recall"].y[-1] == 1.0
    assert set(report.per_photo["poses.mean_error"]) == set(NAMES)
    assert evaluate_run(exact, scene.truth).rows() == rows
    # What is tested is what is shown.
    assert {"registered.share", "points.f_20mm", "mesh.recall_20mm", "photo_consistency"} <= set(
        report.samples
    )
    for name, samples in report.samples.items():
        assert statistic(samples.statistic)(known(samples.values.values())) == pytest.approx(rows[name]), name


def test_points_moved_by_a_known_distance(scene: Scene, tmp_path: Path) -> None:
    """The relief's slope makes the distance to it a little smaller than the shift."""
    report = evaluate_run(
        make_run(scene, tmp_path, shift=-0.03), scene.truth, thresholds=(0.02, 0.05), parts=("surfaces",)
    )
    rows = report.rows()
    assert rows["mesh.accuracy_median_error"] == pytest.approx(0.03, rel=0.1)
    assert rows["mesh.f_20mm"] < 0.1
    assert rows["mesh.f_50mm"] > 0.99
    assert rows["points.f_50mm"] > 0.99
    x, y = report.curves["points.precision"].x, report.curves["points.precision"].y
    assert x[0] == 0
    assert x[-1] == pytest.approx(0.05)
    assert np.interp(0.015, x, y) < 0.2 < 0.9 < np.interp(0.035, x, y)


def test_sparse_matches_and_their_misses(scene: Scene, tmp_path: Path) -> None:
    root = make_run(scene, tmp_path, kind="sparse")
    # Dense fields for the densification do not count as the sparse matcher's matches.
    report = evaluate_run(root, scene.truth, parts=("matches",))
    assert report.metrics["matches.count"] == 300
    assert report.metrics["matches.precision_1px"] == 1.0
    (root / "matches" / "0_1.npz").unlink()
    spoiled = evaluate_run(root, scene.truth, parts=("matches",))
    assert spoiled.metrics["matches.precision_1px"] == pytest.approx(6 / 7)
    assert spoiled.per_pair["matches.count"]["0000.png", "0001.png"] == 0
    assert spoiled.metrics["matches.coverage"] == pytest.approx(
        report.metrics["matches.coverage"] * 6 / 7, rel=0.1
    )
    a, b = (one.samples["matches.count"] for one in (report, spoiled))
    test = paired_difference(a.values, b.values, statistic(a.statistic))
    assert test.difference == pytest.approx(300 / 7)


def test_the_offset_of_matches_comes_out(scene: Scene, tmp_path: Path) -> None:
    root = make_run(scene, tmp_path, kind="sparse")
    for path in (root / "matches").glob("*.npz"):
        data = dict(np.load(path))
        data["xy_b"] = data["xy_b"] + np.array([0, 2.5], np.float32)
        np.savez(path, **data)
    rows = evaluate_run(root, scene.truth, parts=("matches",)).rows()
    assert rows["matches.endpoint_median_px"] == pytest.approx(2.5, abs=0.01)
    assert rows["matches.endpoint_within_1px"] == 0.0
    assert rows["matches.endpoint_within_3px"] == 1.0
    # No epipolar line can be farther off than the point itself.
    assert 1.0 < rows["matches.epipolar_median_px"] < 2.6


def test_an_unregistered_photo_is_a_miss(scene: Scene, run: Path) -> None:
    write_model(run / "sparse" / "0", scene.views[:4])
    report = evaluate_run(run, scene.truth, parts=("poses",))
    assert report.metrics["registered.share"] == 0.8
    # Six of ten pairs are there, without error: the recall is 0.6 up to any limit.
    assert report.metrics["poses.auc_5"] == pytest.approx(0.6, abs=1e-4)
    assert "not registered: 0004.png" in report.notes
    write_model(run / "sparse" / "0", scene.views[:1])
    alone = evaluate_run(run, scene.truth)
    assert alone.metrics["poses.auc_20"] == 0.0
    assert "mesh.f_2mm" not in alone.metrics


def test_left_out_photos(scene: Scene, tmp_path: Path) -> None:
    """The run of four photos predicts the fifth, and is not blamed for not registering it."""
    report = evaluate_run(make_run(scene, tmp_path, given=4), scene.truth)
    assert report.metrics["registered.share"] == 1.0
    assert report.metrics["left_out.mesh_coverage"] == pytest.approx((scene.depths[4] > 0).mean(), abs=0.02)
    assert report.metrics["left_out.mesh_psnr"] > 40
    assert report.metrics["left_out.mesh_ssim"] > 0.99
    assert report.metrics["left_out.cloud_psnr"] > 15
    assert list(report.per_photo["left_out.mesh_psnr"]) == ["0004.png"]
    spoiled = {"0004.png": np.roll(scene.photos[4], 12, axis=1)}
    worse = predict_left_out(tmp_path, scene.truth.views(), spoiled)
    assert worse.mesh["0004.png"].report.psnr < report.metrics["left_out.mesh_psnr"] - 15
    with pytest.raises(ReconError, match=r"other\.png"):
        predict_left_out(tmp_path, scene.truth.views(), {"other.png": scene.photos[0]})


def test_known_flow(scene: Scene, exact: Path) -> None:
    def flow(a: str, b: str) -> np.ndarray | None:
        if (a, b) not in {("0000.png", "0001.png"), ("0002.png", "0001.png")}:
            return None
        return true_flow(scene, NAMES.index(a), NAMES.index(b)).astype(np.float32)

    rows = evaluate_run(exact, replace(scene.truth, flow=flow), parts=("flow",)).rows()
    assert rows["flow.endpoint_px"] < 1 / 32
    assert rows["flow.fl_outliers"] == 0.0

    def doubled(a: str, b: str) -> np.ndarray | None:
        found = flow(a, b)
        return None if found is None else np.repeat(np.repeat(2 * found, 2, 0), 2, 1)

    # A truth at twice the size: its blocks of 2x2 equal pixels are off the linear flow by less than half its slope.
    big = evaluate_run(exact, replace(scene.truth, flow=doubled), parts=("flow",)).rows()
    assert big["flow.consistent_endpoint_px"] < 0.2


def test_without_truth(exact: Path) -> None:
    report = evaluate_run(exact, None)
    assert report.metrics["registered.share"] == 1.0
    assert report.metrics["photo_consistency"] > 0.97
    assert set(report.per_photo["photo_consistency"]) <= set(NAMES)
    assert "cost.seconds" in report.metrics
    assert not any(name.startswith(("poses.", "mesh.")) for name in report.metrics)


def test_names_of_other_tools(scene: Scene, run: Path) -> None:
    """A model that names photos by folder, or without a suffix, is the same model."""
    for file in ("photos.json", "pairs.json", "two_view.npz", "matching.json"):
        (run / file).unlink()
    for rename in (lambda name: f"undistorted/{name}", lambda name: name.replace(".png", ".jpg")):
        write_model(run / "sparse" / "0", scene.views, tuple(map(rename, NAMES)))
        report = evaluate_run(run, scene.truth, parts=("poses",))
        assert report.metrics["registered.share"] == 1.0
        assert report.metrics["poses.mean_error"] < 1e-6


def test_the_truth_of_another_scene(scene: Scene, run: Path) -> None:
    others = {f"other{i}.jpg": camera for i, camera in enumerate(scene.truth.cameras.values())}
    with pytest.raises(ReconError, match=r"share no photo name.*0000\.png.*other0\.jpg"):
        evaluate_run(run, replace(scene.truth, cameras=others))
    square = {
        name: replace(camera, intrinsics=replace(camera.intrinsics, width=120))
        for name, camera in scene.truth.cameras.items()
    }
    with pytest.raises(ReconError, match="another shape"):
        evaluate_run(run, replace(scene.truth, cameras=square))
    turned = dict(zip(NAMES, list(scene.truth.cameras.values())[::-1], strict=True))
    flipped = {
        name: replace(c, cam_from_world=np.diag([-1.0, -1, 1]) @ c.cam_from_world) if i % 2 else c
        for i, (name, c) in enumerate(turned.items())
    }
    report = evaluate_run(run, replace(scene.truth, cameras=flipped), parts=("poses",))
    assert any("another scene" in note for note in report.notes)


def test_damaged_files(scene: Scene, run: Path) -> None:
    (run / "dense" / "points.ply").write_bytes(b"ply\nformat ascii 1.0\nelement vertex 0\nproperty float x\n"
                                               b"property float y\nproperty float z\nend_header\n")  # fmt: skip
    with pytest.raises(ReconError, match=r"points\.ply.*no points"):
        evaluate_run(run, scene.truth, strict=True)
    lenient = evaluate_run(run, scene.truth)
    assert sum(note.startswith("points: ") and "points.ply" in note for note in lenient.notes) == 1
    assert lenient.metrics["mesh.f_2mm"] > 0.99
    assert lenient.metrics["poses.auc_5"] > 0.99
    assert "cost.seconds" in lenient.metrics
    (run / "dense" / "points.ply").unlink()
    (run / "mesh" / "mesh.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
        "element face 0\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n"
    )
    with pytest.raises(ReconError, match=r"mesh\.ply.*no triangles"):
        evaluate_run(run, scene.truth, strict=True)
    (run / "pairs.json").write_text("[")
    with pytest.raises(ReconError, match=r"pairs\.json"):
        evaluate_run(run, scene.truth, strict=True)
    with pytest.raises(ReconError, match="no such folder"):
        evaluate_run(run / "nothing", scene.truth)


def test_thresholds() -> None:
    assert [name for name, _ in evaluation_thresholds(10.0, 1.0)] == [
        "5mm",
        "10mm",
        "20mm",
        "50mm",
        "100mm",
        "200mm",
    ]
    # A DTU scene: half a metre, in millimetres.
    small = evaluation_thresholds(500.0, 0.001)
    assert small[0] == ("0.5mm", pytest.approx(0.5))
    assert evaluation_thresholds(50.0, None)[-1] == ("2pct", 1.0)
    assert evaluation_thresholds(1.0, 0.001, (0.02, 0.01)) == [("10mm", 10.0), ("20mm", 20.0)]
    assert evaluation_thresholds(1.0, None, (0.5,)) == [("0.5u", 0.5)]


def test_repeatability_of_runs(scene: Scene, exact: Path, tmp_path: Path) -> None:
    again = make_run(scene, tmp_path / "again")
    assert set(repeatability_of_runs([exact, again]).values()) == {1.0}
    files = RunFolder(exact)
    match, count = files.named_matches(("0000.png", "0001.png"), 50) or (None, 0)
    assert match is not None
    assert len(match.xy_a) == 50 < count
    assert RUN_FROM_TRUTH.scale != 1


def test_truth_at_another_size_and_as_listed_pairs(scene: Scene, exact: Path) -> None:
    """Cameras of photos twice as large, or the relative poses of a benchmark's list, judge matches alike."""
    plain = evaluate_run(exact, replace(scene.truth, depth=None), parts=("matches", "two_view"))
    twice = {name: camera.resized(320, 240) for name, camera in scene.truth.cameras.items()}
    large = evaluate_run(
        exact, replace(scene.truth, depth=None, cameras=twice), parts=("matches", "two_view")
    )
    views = scene.views
    listed = (
        TruthPair(NAMES[0], NAMES[1], views[0].K, views[1].K, relative_pose_of(views[0], views[1])),
        TruthPair(NAMES[3], NAMES[1], views[3].K, views[1].K, relative_pose_of(views[3], views[1])),
    )
    pairs = evaluate_run(
        exact, replace(scene.truth, depth=None, cameras={}, pairs=listed), parts=("matches", "two_view")
    )
    values = pairs.per_pair["matches.epipolar_median_px"]
    assert set(values) == {(NAMES[0], NAMES[1]), (NAMES[1], NAMES[3])}
    for report in (large, pairs):
        for pair, value in report.per_pair["matches.epipolar_median_px"].items():
            assert value == pytest.approx(plain.per_pair["matches.epipolar_median_px"][pair], rel=1e-3)
    assert pairs.metrics["two_view.auc_1"] > 0.999


def test_true_cameras_with_distortion(scene: Scene, tmp_path: Path) -> None:
    """Matches of distorted photos fit the distorted cameras, and not the pinholes."""
    root = make_run(scene, tmp_path, kind="sparse")
    cameras = {
        name: true_camera(
            camera.width,
            camera.height,
            camera.K,
            camera.cam_from_world[:, :3],
            camera.cam_from_world[:, 3],
            np.array([-0.2, 0.05, 0.001, -0.002]),
            "OPENCV",
        )
        for name, camera in scene.truth.cameras.items()
    }
    for path in (root / "matches").glob("*.npz"):
        data = dict(np.load(path))
        for key in ("xy_a", "xy_b"):
            intrinsics = cameras[NAMES[0]].intrinsics
            data[key] = distort_points(data[key], intrinsics, scene.views[0].K).astype(np.float32)
        np.savez(path, **data)
    fitting = evaluate_run(root, replace(scene.truth, cameras=cameras), parts=("matches",)).metrics
    pinhole = evaluate_run(root, scene.truth, parts=("matches",)).metrics
    assert fitting["matches.epipolar_median_px"] < 1e-3
    assert "matches.endpoint_median_px" not in fitting
    assert pinhole["matches.endpoint_median_px"] > 0.1


def test_a_surface_without_cameras_must_lie_in_the_world_of_the_truth(scene: Scene, tmp_path: Path) -> None:
    write_mesh_ply(tmp_path / "mesh.ply", scene.mesh)
    here = evaluate_run(tmp_path, scene.truth)
    assert here.metrics["mesh.chamfer"] < 1e-5
    assert here.metrics["registered.share"] == 0.0
    assert any("taken to be in the world of the truth" in note for note in here.notes)
    turned = replace(scene.mesh, vertices=scene.mesh.vertices[:, [1, 0, 2]].copy())
    write_mesh_ply(tmp_path / "mesh.ply", turned)
    assert any("in one world?" in note for note in evaluate_run(tmp_path, scene.truth).notes)
    moved = replace(scene.mesh, vertices=RUN_FROM_TRUTH(scene.mesh.vertices).astype(np.float32))
    write_mesh_ply(tmp_path / "mesh.ply", moved)
    there = evaluate_run(tmp_path, scene.truth)
    assert "mesh.chamfer" not in there.metrics
    assert any("different worlds" in note for note in there.notes)


def test_tracks_by_hand() -> None:
    model = SparseModel(
        np.array([[0, 0, 0.5], [0.2, 0, 0.5], [5.5, 0, 0.9]]),
        np.array([2.0, 3.0, 7.0]),
        np.array([0.5, 0.1, 0.3]),
        12,
    )
    truth = np.array([[0, 0, 0.5], [5.5, 0, 0.5], [5.7, 0, 0.5], [5.9, 0, 0.5]], np.float32)
    report = evaluate_tracks(model, truth, thresholds=(0.1, 0.45), voxel=1.0)
    assert (report.points, report.observations) == (3, 12)
    assert (report.mean_length, report.median_length) == (4.0, 3.0)
    assert report.long_share == pytest.approx(2 / 3)
    assert (report.mean_reprojection, report.median_reprojection) == (pytest.approx(0.3), pytest.approx(0.3))
    assert report.surface is not None
    # Accuracy: the first voxel holds a right point and one 0.2 off, the second one 0.4 off.
    assert report.surface.precision == pytest.approx((0.25, 1.0))
    # Completeness: the one truth of the first voxel is found; of the other three two are within 0.45.
    assert report.surface.recall == pytest.approx((0.5, (1 + 2 / 3) / 2))
    assert "accuracy 25.0%" in report.text()
    assert evaluate_tracks(model).surface is None


def test_cost_of_what_is_no_workspace(tmp_path: Path) -> None:
    with pytest.raises(ReconError, match=r"manifest\.json: no such file"):
        evaluate_cost(tmp_path)
    (tmp_path / "manifest.json").write_text('{"stages": {"match": {"state": "done"}}}')
    with pytest.raises(ReconError, match=r"manifest\.json: not a manifest"):
        evaluate_cost(tmp_path)
    record = '"cpu_seconds": 1, "peak_memory_mb": 5, "seconds": 2, "state": "done"'
    counts = '"counts": {"pairs": 4, "seconds_per_pair": 0.125}'
    (tmp_path / "manifest.json").write_text(f'{{"stages": {{"match": {{{record}, {counts}}}}}}}')
    assert evaluate_cost(tmp_path).seconds_per_pair == 0.125


def test_seconds_a_pair_have_an_interval_over_pairs(scene: Scene, tmp_path: Path) -> None:
    root = make_run(scene, tmp_path)
    matching = json.loads((root / "matching.json").read_text())
    seconds = {"0_1": 1.0, "0_2": 2.0, "1_2": 3.0, "2_3": 6.0}
    (root / "matching.json").write_text(json.dumps({**matching, "seconds": seconds}))
    report = evaluate_run(root, None, parts=("cost",))
    found = report.intervals()["cost.seconds_per_pair"]
    assert 1.0 <= found.low < 3.0 < found.high <= 6.0
    assert dict(report.samples["cost.seconds_per_pair"].values) == seconds
