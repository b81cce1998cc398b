"""The comparison from photos to files: shared work, failures in their row, cameras that are given, photos left out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import BaseModel

from recon.cli import main
from recon.compare import running
from recon.compare.engine import compare_scene
from recon.compare.options import Options
from recon.compare.plan import Scene, contenders, find_scene
from recon.compare.report import write_comparison
from recon.compare.results import SceneResult
from recon.compare.running import Job, run_job
from recon.compare.sweep import compare_sweep, parse_sweep
from recon.errors import ReconError, UsageError
from recon.evaluation.poses import poses_from_colmap
from recon.matching import registry
from recon.matching.types import Capabilities

OPTIONS = Options(quality="preview", isolate=False, threads=2, pictures=1)

SETTINGS = ("depth.max_size=160", "depth.levels=2", "mesh.depth=6", "tracks.max_anchors=300")


class BrokenMatcher:
    """Fails on every pair."""

    name: ClassVar[str] = "broken-for-tests"
    capabilities: ClassVar[Capabilities] = Capabilities(kind="dense")

    class Settings(BaseModel):
        pass

    def __init__(self, settings: Any) -> None:
        pass

    def prepare(self, image: Any) -> Any:
        return image

    def match(self, a: Any, b: Any, context: Any) -> Any:  # noqa: ARG002
        raise ValueError("nothing matches here")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    from recon.synthetic.difficulties import render_benchmark_scene

    folder = tmp_path_factory.mktemp("compare") / "scene"
    render_benchmark_scene(folder, scene="facade", seed=1, photos=5, size=(240, 180))
    return find_scene(folder)


@pytest.fixture(scope="module")
def compared(small: Scene, tmp_path_factory: pytest.TempPathFactory) -> tuple[SceneResult, Path]:
    out = tmp_path_factory.mktemp("compared")
    registry.register(BrokenMatcher)
    try:
        chosen = contenders(["dis", BrokenMatcher.name], SETTINGS)
        result = compare_scene(small, chosen, OPTIONS, out)
        write_comparison([result], out)
    finally:
        registry.registered.pop(BrokenMatcher.name)
    return result, out


def test_one_comparison_and_a_failure_in_its_row(compared: tuple[SceneResult, Path]) -> None:
    result, out = compared
    good, broken = result.entries
    assert good.error == ""
    assert good.metrics["registered.share"] == 1.0
    assert good.metrics["poses.auc_5"] > 0.5
    assert good.evaluation.intervals["poses.mean_error"].count == 5
    assert "failed on every pair" in broken.error
    assert "nothing matches here" in broken.error
    assert broken.failed_stage == "match"
    data = json.loads((out / "comparison.json").read_text())
    rows = data["scenes"][0]["contenders"]
    assert [row["state"] for row in rows] == ["done", "failed"]
    assert "nothing matches here" in (out / "comparison.csv").read_text()
    assert "nothing matches here" in (out / "comparison.html").read_text()
    drawn = data["scenes"][0]["pictures"]
    assert [panel["label"] for panel in drawn["pairs"][0]["panels"]] == ["dis"]
    assert [panel["label"] for panel in drawn["depth"][0]["panels"]] == ["photo", "truth", "dis"]
    # The pictures are coloured by the same distance that the table judges matches by.
    pair = drawn["pairs"][0]
    values = good.evaluation.samples["matches.precision_1px"].values
    judged = next(value for key, value in values.items() if pair["a"] in key and pair["b"] in key)
    assert pair["panels"][0]["good"] == pytest.approx(judged, abs=0.02)


def test_exit_code_where_every_matcher_failed(
    small: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.register(BrokenMatcher)
    try:
        told = ["--matchers", BrokenMatcher.name, "--quality", "preview", "--in-process"]
        assert main(["compare", str(small.photos), "--out", str(tmp_path), *told]) == 1
    finally:
        registry.registered.pop(BrokenMatcher.name)
    said = capsys.readouterr()
    assert f"{BrokenMatcher.name} failed: " in said.out
    assert "nothing matches here" in said.out
    assert str(tmp_path / "comparison.html") in said.out
    assert "nothing matches here" in (tmp_path / "comparison.csv").read_text()
    assert "every matcher failed" in said.err


def test_again_from_the_disk(
    compared: tuple[SceneResult, Path], small: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, out = compared

    def nothing(*_: Any, **__: Any) -> Any:
        raise AssertionError("computed again")

    monkeypatch.setattr(Job, "run", nothing)
    monkeypatch.setattr("recon.compare.evaluation.evaluate_run", nothing)
    monkeypatch.setattr("recon.compare.pictures.draw_all", nothing)
    again = compare_scene(small, contenders(["dis"], SETTINGS), OPTIONS, out)
    assert again.entries[0].error == ""
    assert again.entries[0].metrics == result.entries[0].metrics


def test_the_true_cameras_for_all(compared: tuple[SceneResult, Path], small: Scene) -> None:
    _, out = compared
    options = replace(OPTIONS, poses="gt")
    result = compare_scene(small, contenders(["dis"], SETTINGS), options, out)
    (entry,) = result.entries
    assert entry.error == ""
    assert {"photos", "match", "verify", "tracks"} <= set(entry.adopted)
    assert "map" not in entry.adopted
    assert small.truth is not None
    found, true = poses_from_colmap(entry.root / "sparse" / "0"), small.truth.poses()
    for name, pose in true.items():
        np.testing.assert_allclose(found[name], pose, atol=1e-9)
    assert entry.metrics["poses.mean_error"] < 1e-9
    assert entry.metrics["run.sparse_points"] > 50
    assert entry.metrics["mesh.f_20mm"] > 0


def test_photos_left_out(compared: tuple[SceneResult, Path], small: Scene) -> None:
    _, out = compared
    plain = Scene(small.name, small.photos)  # as if nothing were known
    options = replace(OPTIONS, leave_out=1, intrinsics=str(out / "intrinsics.json"))
    result = compare_scene(plain, contenders(["dis"], SETTINGS), options, out)
    (entry,) = result.entries
    assert entry.error == ""
    assert entry.metrics["left_out.mesh_coverage"] > 0.5
    assert 12 < entry.metrics["left_out.mesh_psnr"] < 45
    assert list(entry.evaluation.samples["left_out.mesh_psnr"].values) == ["0002.png"]
    assert any("its own reconstruction with all photos" in note for note in result.notes)
    without = poses_from_colmap(out / "left_out" / "0002.png" / "dis-each" / "sparse" / "0")
    assert "0002.png" not in without


def test_what_cannot_be_compared_is_said_before_anything_runs(
    small: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert small.truth is not None
    ran: list[str] = []
    monkeypatch.setattr(running, "run_here", lambda job: ran.append(job.out) or "")
    chosen = contenders(["dis"], SETTINGS)
    with pytest.raises(UsageError, match=r"dis: .*match.windw"):
        compare_scene(small, contenders(["dis"], ["match.windw=3"]), OPTIONS, tmp_path / "a")
    plain = Scene(small.name, small.photos)
    with pytest.raises(UsageError, match="nothing is known of the cameras"):
        compare_scene(plain, chosen, replace(OPTIONS, poses="gt"), tmp_path / "a")
    with pytest.raises(UsageError, match="no such place"):
        compare_scene(plain, chosen, replace(OPTIONS, poses="nobody"), tmp_path / "a")
    assert ran == []


def test_the_truth_of_another_scene(small: Scene, tmp_path: Path) -> None:
    assert small.truth is not None
    other = replace(
        small.truth, cameras={f"other-{name}": camera for name, camera in small.truth.cameras.items()}
    )
    with pytest.raises(ReconError, match=r"names none of the photos.*other-0000"):
        compare_scene(
            replace(small, truth=other),
            contenders(["dis"]),
            replace(OPTIONS, intrinsics="estimate"),
            tmp_path,
        )


def test_a_crash_ends_one_run_alone(small: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(str(small.photos), str(tmp_path / "run"), "siftflow", quality="preview", stop_after="photos")
    assert run_job(job).error == ""
    assert (tmp_path / "run" / "photos.json").is_file()
    program = tmp_path / "crash"
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(running.sys, "executable", str(program))
    assert "SIGKILL" in run_job(replace(job, out=str(tmp_path / "other"))).error


def test_a_sweep(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="difficulties: "):
        parse_sweep("zom=1,2", "", 5, "200x150", 0)
    with pytest.raises(UsageError, match="numbers"):
        parse_sweep("zoom=1,x", "", 5, "200x150", 0)
    with pytest.raises(UsageError, match="WIDTHxHEIGHT"):
        parse_sweep("zoom=1", "", 5, "200", 0)
    sweep = parse_sweep("noise=0,12", "facade", 4, "160x120", 0)
    options = replace(OPTIONS, stop_after="map")
    html, *_ = compare_sweep(sweep, contenders(["dis"], SETTINGS), options, tmp_path, lambda _: None)
    data = json.loads((tmp_path / "comparison.json").read_text())
    assert data["sweep"] == {"parameter": "noise", "values": ["0", "12"]}
    assert [scene["name"] for scene in data["scenes"]] == ["facade, noise 0", "facade, noise 12"]
    precision = [scene["contenders"][0]["metrics"]["matches.precision_1px"] for scene in data["scenes"]]
    assert precision[1] < precision[0]
    assert html.is_file()


def test_seeds_give_a_spread_and_what_comes_again(small: Scene, tmp_path: Path) -> None:
    options = replace(OPTIONS, seeds=2, stop_after="map", pictures=0)
    entry, dense = compare_scene(small, contenders(["sift", "dis"], SETTINGS), options, tmp_path).entries
    assert entry.error == dense.error == ""
    # Each seed computes its own fields, so that their cost is in the range.
    fields = [{path.name for path in (tmp_path / name).iterdir()} for name in ("fields", "fields.seed-1")]
    assert len(fields[0]) == len(fields[1]) == 10
    assert fields[0] & fields[1]
    low, high = entry.spread["poses.mean_error"]
    assert low <= entry.metrics["poses.mean_error"] <= high
    # Matches do not depend on the seed: what the verification's sampling leaves differs by a few.
    assert 0.8 < entry.metrics["matches.repeatability"] <= 1.0
    assert entry.evaluation.intervals["matches.repeatability"].count >= 4
    first, second = (tmp_path / "runs" / name for name in ("sift", "sift.seed-1"))
    assert np.array_equal(
        *(np.load(next((run / "matches").glob("*.npz")))["xy_a"] for run in (first, second))
    )
