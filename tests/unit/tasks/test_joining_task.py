"""Photos that mapping left out, joined through the dense matches of a workspace of photos with hardly any texture."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pytest

from recon.core.cameras import fundamental_matrix
from recon.core.similarity import camera_center
from recon.engine.stage import StageContext
from recon.errors import ReconError
from recon.features.types import InterestPoints
from recon.graph.types import Tracks, ViewGraph
from recon.matching.types import DenseMatch, FlowField
from recon.run.folder import GRAPH, POINTS, RunFolder, write_points
from recon.run.matches import FLOWS, MATCHING, Pair, write_dense_match
from recon.sfm.adapter import posed_cameras
from recon.sfm.mapping import MappingResult, MappingSettings, map_known
from recon.synthetic.runs import write_true_run
from recon.tasks import joining
from recon.tasks.joining import COARSE_FLOWS, joined_by_flow
from recon.tasks.tracks import TrackOptions, tracks_of_flow
from tests.support.dense_scenes import exact_flow, make_views, plane_depth, texture, world_points

VIEWS = make_views(6)
LEFT_OUT = 5
INSIDE = [(a, b) for b in range(LEFT_OUT) for a in range(b)]
DROPPED = [(a, LEFT_OUT) for a in range(LEFT_OUT)]
SETTINGS = MappingSettings(threads=1)


def true_match(pair: Pair, part: int = 1) -> DenseMatch:
    """The dense match of a pair at a part of the size of the photos."""
    a, b = (VIEWS[i].resized(VIEWS[i].width // part, VIEWS[i].height // part) for i in pair)
    return both_ways(exact_flow(a, b, plane_depth(a)), exact_flow(b, a, plane_depth(b)))


def both_ways(there: np.ndarray, back: np.ndarray) -> DenseMatch:
    """Flow of two photos of one size, consistent where it ends inside."""
    height, width = there.shape[:2]
    start = np.dstack(np.meshgrid(np.arange(width), np.arange(height)))
    sides = []
    for flow in (there, back):
        inside = ((start + flow >= 0) & (start + flow <= [width - 1, height - 1])).all(axis=2)
        sides.append((FlowField(flow.astype(np.float32), inside.astype(np.float32)), inside))
    return DenseMatch(sides[0][0], sides[1][0], sides[0][1], sides[1][1])


def anywhere(pair: Pair) -> DenseMatch:
    """Flow of smooth patches that lead anywhere."""
    rng = np.random.default_rng(pair)
    fields = [np.kron(rng.uniform(-40, 40, (6, 8, 2)), np.ones((20, 20, 1))) for _ in range(2)]
    return both_ways(*fields)


class Apart(SimpleNamespace):
    """A mapped workspace of which one photo is left out; its pairs have flow and are no edges."""

    work: StageContext
    graph: ViewGraph
    tracks: Tracks
    result: MappingResult

    def joined(self) -> joining.Joined | None:
        run = RunFolder.of(self.work)
        return joined_by_flow(self.result, run.photo_set, self.graph, self.tracks, SETTINGS, self.work)


def apart(root: Path, flow: Callable[[Pair], DenseMatch], points: int = 50) -> Apart:
    """Photos of a plane, each with so many interest points."""
    depths = [plane_depth(view).astype(np.float32) for view in VIEWS]
    greys = [texture(world_points(view, depth)) for view, depth in zip(VIEWS, depths, strict=True)]
    images = [np.repeat((255 * grey).astype(np.uint8)[..., None], 3, axis=2) for grey in greys]
    write_true_run(root, VIEWS, images, depths, tracks=100)
    for pair in INSIDE:
        write_dense_match(root / FLOWS / f"{pair[0]}_{pair[1]}", true_match(pair))
    for pair in DROPPED:
        write_dense_match(root / FLOWS / f"{pair[0]}_{pair[1]}", flow(pair))
    (root / POINTS).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for view in VIEWS:
        xy = rng.uniform([0, 0], [view.width - 1, view.height - 1], (points, 2)).astype(np.float32)
        ones = np.ones(points, np.float32)
        found = InterestPoints(xy, ones, 0 * ones, np.zeros((points, 128), np.uint8))
        write_points(root / POINTS / f"{view.photo_id}.npz", found)
    work = StageContext(root, "map", "test")
    run = RunFolder.of(work)
    run.write_pairs({}, {})
    dense = {"matcher": "siftflow", "settings": {}, "max_size": 160, "turn_upright": False}
    stored = {
        "matcher": "siftflow",
        "kind": "dense",
        "repeatable": True,
        "pairs": [*INSIDE, *DROPPED],
        "dense": dense,
    }
    (root / MATCHING).write_text(json.dumps(stored))
    graph = ViewGraph()
    graph.add_nodes_from((view.photo_id, {"name": view.name}) for view in VIEWS)
    graph.add_edges_from(INSIDE, model="E", inliers=100, evidence=0.9)
    nx.write_graphml(graph, root / GRAPH)
    geometry = {(a, b): fundamental_matrix(VIEWS[a], VIEWS[b]) for a, b in INSIDE}
    tracks = tracks_of_flow(run, INSIDE, TrackOptions(), work, geometry)
    poses = {view.photo_id: view.cam_from_world for view in VIEWS[:LEFT_OUT]}
    return Apart(
        work=work, graph=graph, tracks=tracks, result=map_known(run.photo_set, tracks, poses, SETTINGS)
    )


def assert_all_in_place(joined: joining.Joined | None) -> None:
    assert joined is not None
    best = joined.result.best
    assert best is not None
    found = posed_cameras(best, joined.photos)
    assert sorted(found) == list(range(len(VIEWS)))
    centres = np.array([found[i].center for i in range(len(VIEWS))])
    truth = np.array([camera_center(view.cam_from_world) for view in VIEWS])
    centres, truth = centres - centres[0], truth - truth[0]
    assert np.linalg.norm(centres - truth, axis=1).max() < 0.05
    assert any(joined.graph.has_edge(*pair) for pair in DROPPED)


def test_a_photo_is_joined_by_the_flow_of_a_pair_that_is_no_edge(tmp_path: Path) -> None:
    assert_all_in_place(apart(tmp_path / "run", true_match).joined())


def test_nothing_is_done_where_nothing_is_left_out_or_the_photos_have_texture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_match(*_: object) -> None:
        raise AssertionError("nothing is matched again")

    monkeypatch.setattr(joining, "match_pairs", no_match)
    textured = apart(tmp_path / "run", true_match, points=700)
    assert textured.joined() is None
    textured.result = MappingResult(textured.result.reconstructions, 0, ())
    assert textured.joined() is None


def test_pairs_whose_flow_joins_nothing_are_matched_again_at_half_the_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = apart(tmp_path / "run", anywhere)
    asked: list[Pair] = []

    def at_half_size(
        work: StageContext, job: joining.PairJob, pairs: Sequence[Pair], name: str
    ) -> tuple[list[SimpleNamespace], int]:
        assert job.max_size == 80
        assert name == COARSE_FLOWS
        asked.extend(pairs)
        for pair in pairs:
            write_dense_match(work.path(name) / f"{pair[0]}_{pair[1]}", true_match(pair, 2))
        return [SimpleNamespace(pair=pair, failure="") for pair in pairs], 0

    monkeypatch.setattr(joining, "match_pairs", at_half_size)
    assert_all_in_place(broken.joined())
    assert asked == DROPPED  # those within the model are not asked again


def test_a_second_match_that_fails_leaves_the_model_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = apart(tmp_path / "run", anywhere)

    def fails(*_: object) -> None:
        raise ReconError("the matcher failed on every pair")

    monkeypatch.setattr(joining, "match_pairs", fails)
    assert broken.joined() is None
    assert any("failed on every pair" in said for said in broken.work.warnings)
    assert broken.result.best is not None
    assert broken.result.best.num_reg_images() == LEFT_OUT
