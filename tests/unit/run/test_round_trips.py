"""What a stage writes through the door of a run, another one reads there, and the files hold what the format says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from recon.core.cameras import Intrinsics
from recon.dense.types import DepthMap
from recon.engine.stage import StageContext
from recon.errors import ReconError, UsageError
from recon.features.types import InterestPoints
from recon.graph.types import Tracks, TwoViewGeometry
from recon.matching.types import DenseMatch, FlowField
from recon.photos.types import LeftOut, Photo, PhotoSet
from recon.run.folder import RunFolder, read_depth, write_depth, write_points
from recon.run.inputs import RunInputs
from recon.run.matches import FLOW_STEP, write_dense_match
from recon.run.photos import mask_file, photo_file

CAMERA = Intrinsics("SIMPLE_RADIAL", (100.0, 79.5, 59.5, -0.1), 160, 120, True, True)


def photo_set() -> PhotoSet:
    photos = tuple(
        Photo(i, name, f"{i:064x}", 160, 120, 320, 240, 0, False, (1.5, 2.5, 3.0) if i else None)
        for i, name in enumerate(("a/1.jpg", "a%2F1.jpg", "b.jpg"))
    )
    return PhotoSet(photos, (CAMERA,), (LeftOut("c.jpg", "too small"),))


def written(tmp_path: Path) -> tuple[StageContext, RunFolder]:
    work = StageContext(tmp_path)
    RunFolder.of(work).write_photo_set(photo_set())
    return work, RunFolder(tmp_path)


def test_the_photo_set_comes_back_equal(tmp_path: Path) -> None:
    work, run = written(tmp_path)
    assert run.photo_set == photo_set()
    assert run.given == {"a/1.jpg", "a%2F1.jpg", "b.jpg", "c.jpg"}
    assert run.original_size("b.jpg") == (320, 240)
    assert work.written == ["photos.json"]
    assert len({photo_file(name) for name in run.photos} | {mask_file(name) for name in run.photos}) == 6


def test_pairs_and_sparse_matches(tmp_path: Path) -> None:
    work, run = written(tmp_path)
    rows = np.array([[0, 3], [2, 1]])
    RunFolder.of(work).write_pairs({(0, 2): 2, (1, 2): 0}, {(0, 2): rows})
    assert run.pairs == [(0, 2), (1, 2)]
    assert run.named_pairs == (("a/1.jpg", "b.jpg"), ("a%2F1.jpg", "b.jpg"))
    assert json.loads((tmp_path / "pairs.json").read_text())[0] == {
        "a": "a/1.jpg", "b": "b.jpg", "i": 0, "j": 2, "sparse_inliers": 2,
    }  # fmt: skip
    ((pair, read),) = run.sparse_matches().items()
    assert pair == (0, 2)
    np.testing.assert_array_equal(read, rows)


def test_tracks_points_and_two_view_geometry(tmp_path: Path) -> None:
    work, run = written(tmp_path)
    out = RunFolder.of(work)
    tracks = Tracks(np.array([0, 0, 1]), np.array([0, 2, 1]), np.arange(6, dtype=np.float32).reshape(3, 2))
    out.write_tracks(tracks)
    with np.load(tmp_path / "tracks.npz") as data:
        assert set(data.files) == {"track_id", "photo_id", "xy"}
    read = run.tracks()
    np.testing.assert_array_equal(read.xy, tracks.xy)
    assert read.is_reference is None
    points = InterestPoints(
        np.ones((2, 2), np.float32),
        np.ones(2, np.float32),
        np.zeros(2, np.float32),
        np.zeros((2, 128), np.uint8),
    )
    (tmp_path / "features").mkdir()
    write_points(tmp_path / "features" / "1.npz", points)
    np.testing.assert_array_equal(run.points(1).xy, points.xy)
    pose = np.column_stack([np.eye(3), [1.0, 0, 0]])
    geometry = TwoViewGeometry("E", np.eye(3), b_from_a=pose, inliers=np.array([True, False]))
    out.write_two_view({(0, 2): geometry}, with_inliers={(0, 2)})
    np.testing.assert_array_equal(run.inliers((0, 2)), [True, False])
    poses = run.named_two_view_poses()
    assert poses is not None
    np.testing.assert_array_equal(poses["a/1.jpg", "b.jpg"], pose)


def test_flow_loses_no_more_than_half_a_step(tmp_path: Path) -> None:
    """Both ways of reading a dense match agree with what was written to 1/64 px."""
    work, run = written(tmp_path)
    rng = np.random.default_rng(0)
    fields = [
        FlowField(rng.normal(0, 3, (60, 80, 2)).astype(np.float32), rng.random((60, 80)).astype(np.float32))
        for _ in range(2)
    ]
    match = DenseMatch(*fields, rng.random((60, 80)) < 0.3, np.ones((60, 80), bool))
    RunFolder.of(work).write_pairs({(0, 2): 0}, {})
    (tmp_path / "matching.json").write_text(json.dumps({"kind": "dense"}))
    (tmp_path / "flows.zarr").mkdir()
    write_dense_match(run.match_path((0, 2), dense=True), match)
    assert np.abs(run.dense_match((0, 2)).a_to_b.flow - fields[0].flow).max() <= FLOW_STEP / 2 + 1e-6
    both = run.dense_match((0, 2))
    for ends, field, consistent, back in (
        ((0, 2), both.a_to_b, both.consistent_a, both.b_to_a),
        ((2, 0), both.b_to_a, both.consistent_b, both.a_to_b),
    ):
        one = run.directed_match(*ends)
        np.testing.assert_array_equal(one.field.flow, field.flow)
        np.testing.assert_array_equal(one.field.confidence, field.confidence)
        np.testing.assert_array_equal(one.consistent, consistent)
        assert one.target == back.confidence.shape
    ((names, points, count),) = run.matches()
    assert names == ("a/1.jpg", "b.jpg")
    assert count == match.consistent_a.sum() == len(points.xy_a)
    # Matching saw the photos at half their size: the centre of pixel x there is 2 x + 0.5 here.
    rows, columns = np.nonzero(match.consistent_a)
    np.testing.assert_allclose(points.xy_a, 2 * np.stack([columns, rows], 1) + 0.5)
    moved = np.stack([columns, rows], 1) + fields[0].flow[rows, columns]
    np.testing.assert_allclose(points.xy_b, 2 * moved + 0.5, atol=FLOW_STEP + 1e-4)
    reverse = run.named_flow(("b.jpg", "a/1.jpg"))
    assert reverse is not None
    assert np.abs(reverse[0] - fields[1].flow).max() <= FLOW_STEP / 2 + 1e-6


def test_depth_maps(tmp_path: Path) -> None:
    depth = np.random.default_rng(1).random((5, 7)).astype(np.float32)
    normal = np.full((5, 7, 3), -0.57735, np.float32)
    write_depth(tmp_path / "0.npz", DepthMap(depth, normal, depth))
    read = read_depth(tmp_path / "0.npz")
    np.testing.assert_array_equal(read.depth, depth)
    np.testing.assert_allclose(read.normal, normal, atol=1e-3)


def test_what_is_missing_names_the_stage_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ReconError, match="no such folder"):
        RunFolder(tmp_path / "nowhere")
    run = RunFolder(tmp_path)
    assert (run.photos, run.pairs, run.model, run.cloud(), run.mesh()) == ({}, [], None, None, None)
    with pytest.raises(ReconError, match="restart-from photos"):
        _ = run.photo_set
    with pytest.raises(ReconError, match="restart-from match"):
        _ = run.matching
    with pytest.raises(ReconError, match="as far as stage map"):
        _ = run.reconstruction
    (tmp_path / "photos.json").write_text('{"photos": [{"id": 0}]}')
    with pytest.raises(ReconError, match=r"photos\.json: cannot be read .*restart-from photos"):
        _ = RunFolder(tmp_path).photo_set


def test_inputs_say_what_was_given(tmp_path: Path) -> None:
    assert RunInputs(("photos",)).described() == {"photos": "photos"}
    several = RunInputs(("a", "b"), frames=9, camera_sharing="single")
    assert several.described() == {"photos": "('a', 'b')", "frames": 9, "camera_sharing": "single"}
    assert several.sharing() == "single"
    with pytest.raises(UsageError, match="--camera-sharing some"):
        RunInputs(camera_sharing="some").sharing()
    (tmp_path / "images.txt").write_text("")
    (tmp_path / "cameras.txt").write_text("")
    named = RunInputs(intrinsics=str(tmp_path / "cameras.txt")).intrinsics_files()
    assert [path.name for path in named] == ["cameras.txt", "images.txt"]
    assert RunInputs(intrinsics="1,2,3,4").intrinsics_files() == []
