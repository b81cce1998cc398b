"""A run whose cameras come from point matches and whose densification comes from another matcher's fields."""

from __future__ import annotations

import json
from pathlib import Path

import networkx as nx
import pycolmap
import pytest

from recon.api import reconstruct
from recon.engine.runner import RunSummary
from recon.evaluation.poses import evaluate_poses, poses_from_colmap
from recon.io.cameras_json import poses_from_cameras_json
from tests.support.scenes import SceneFolder


def run(scene: SceneFolder, out: Path, *overrides: str) -> RunSummary:
    return reconstruct(
        scene.photos,
        out,
        recipe="sift",
        quality="preview",
        intrinsics=scene.cameras,
        overrides=["match.dense_matcher=dis", "depth.iterations=0", *overrides],
        stop_after="depth",
        threads=2,
    )


@pytest.fixture(scope="module")
def done(scene: SceneFolder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunSummary]:
    out = tmp_path_factory.mktemp("sparse") / "out"
    return out, run(scene, out)


def test_cameras_are_right(scene: SceneFolder, done: tuple[Path, RunSummary]) -> None:
    truth = poses_from_cameras_json(scene.cameras)
    report = evaluate_poses(poses_from_colmap(done[0] / "sparse" / "0"), truth)
    assert report.registered == len(truth)
    # The cameras stand some 5 units from the wall; a pixel there covers about 0.015 units.
    assert report.center_errors.mean() < 0.03


def test_only_verified_pairs_of_registered_photos_get_a_field(done: tuple[Path, RunSummary]) -> None:
    out, summary = done
    graph = nx.read_graphml(out / "view_graph.graphml", node_type=int)
    model = pycolmap.Reconstruction(out / "sparse" / "0")
    registered = {number - 1 for number in model.reg_image_ids()}
    expected = {f"{min(e)}_{max(e)}" for e in graph.edges if set(e) <= registered}
    assert {path.name for path in (out / "flows.zarr").glob("*_*")} == expected
    assert summary.counts("fields")["pairs"] == len(expected)
    assert summary.counts("fields")["matcher"] == "dis"
    assert summary.counts("depth")["triangulated_share"] > 0.1


def test_each_matcher_has_its_own_figures(done: tuple[Path, RunSummary]) -> None:
    out, summary = done
    own, dense = summary.counts("match"), summary.counts("fields")
    assert own["matcher"] == "sift"
    assert own["kind"] == "sparse"
    assert own["matches_per_pair"] > 50
    seconds = json.loads((out / "matching.json").read_text())["seconds"]
    assert own["seconds_per_pair"] == pytest.approx(sum(seconds.values()) / len(seconds), abs=1e-3)
    assert dense["seconds_per_pair"] > 0


def test_depth_settings_compute_no_field_again(scene: SceneFolder, done: tuple[Path, RunSummary]) -> None:
    out, _ = done
    before = {path: path.stat().st_mtime_ns for path in (out / "flows.zarr").glob("*_*")}
    summary = run(scene, out, "depth.max_reprojection=1.4")
    assert [stage.name for stage in summary.stages if not stage.skipped] == ["depth"]
    assert before == {path: path.stat().st_mtime_ns for path in (out / "flows.zarr").glob("*_*")}


def test_a_dense_matcher_afterwards_replaces_the_point_matches(
    scene: SceneFolder, done: tuple[Path, RunSummary], tmp_path: Path
) -> None:
    import shutil

    out = tmp_path / "out"
    shutil.copytree(done[0], out)
    reconstruct(
        scene.photos,
        out,
        recipe="siftflow",
        quality="preview",
        intrinsics=scene.cameras,
        overrides=["match.matcher=dis"],
        stop_after="verify",
        threads=2,
    )
    assert not (out / "matches").exists()
    assert json.loads((out / "matching.json").read_text())["kind"] == "dense"
    pairs = json.loads((out / "matching.json").read_text())["pairs"]
    assert len(list((out / "flows.zarr").glob("*_*"))) == len(pairs)
