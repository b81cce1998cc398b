"""The depth stage on a plane of known flow: one process or tasks, views taken over when photos come and go."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest

from recon.core.cameras import PinholeView
from recon.core.colmap import pycolmap, read_reconstruction
from recon.engine.stage import StageContext
from recon.matching.types import DenseMatch, FlowField
from recon.run.folder import FIELDS, GRAPH, RunFolder
from recon.run.matches import FLOWS, write_dense_match
from recon.run.standing import VIEWS, Posed, Standing, read_standings
from recon.stages.depth import DepthStage
from recon.synthetic.runs import write_true_run
from tests.support.dense_scenes import exact_flow, make_views, plane_depth, texture, world_points


def write_run(root: Path, views: list[PinholeView]) -> None:
    """A workspace as far as the fields, of the plane."""
    depths = [plane_depth(view).astype(np.float32) for view in views]
    greys = [texture(world_points(view, depth)) for view, depth in zip(views, depths, strict=True)]
    images = [np.repeat((255 * grey).astype(np.uint8)[..., None], 3, axis=2) for grey in greys]
    named = [replace(view, photo_id=i) for i, view in enumerate(views)]
    write_true_run(root, named, images, depths, tracks=400, noise_px=0.0)
    shutil.rmtree(root / "dense")
    graph: nx.Graph[int] = nx.complete_graph(len(views))
    for i, j in graph.edges:
        sides = []
        for a, b in ((i, j), (j, i)):
            flow = exact_flow(views[a], views[b], depths[a]).astype(np.float32)
            y, x = np.mgrid[: views[a].height, : views[a].width]
            there = flow + np.stack([x, y], -1)
            inside = (there >= 0).all(-1) & (there <= (views[b].width - 1, views[b].height - 1)).all(-1)
            sides.append((FlowField(flow, inside.astype(np.float32)), inside))
        match = DenseMatch(sides[0][0], sides[1][0], sides[0][1], sides[1][1])
        write_dense_match(root / FLOWS / f"{i}_{j}", match)
    nx.write_graphml(graph, root / GRAPH)
    (root / FIELDS).write_text(json.dumps({"matcher": "truth", "pairs": list(graph.edges)}))


def depth_stage(root: Path, fingerprint: str, **options: Any) -> dict[str, Any]:
    settings = DepthStage.Settings(neighbours=3, levels=1)
    return DepthStage().run(settings, StageContext(root, "depth", fingerprint, **options))


def test_views_are_taken_over_when_their_sources_stay(tmp_path: Path) -> None:
    """A photo comes, the world gets another unit and place: depth that stays is that of before, in the new unit; what
    is computed again is right to the accuracy of the first run."""
    views = make_views(6)
    old, new = tmp_path / "old", tmp_path / "new"
    write_run(old, views[:5])
    first = depth_stage(old, "a", memory=1 << 16)  # no map stays in memory
    assert "kept_of_before" not in first
    assert first["depth_agreement"] > 0.95
    again = tmp_path / "again"
    write_run(again, views[:5])
    depth_stage(again, "a", threads=3)
    for file in (old / "dense" / "depth").iterdir():
        assert file.read_bytes() == (again / "dense" / "depth" / file.name).read_bytes()

    # The new photo stands first in the names, so that all numbers change.
    write_run(new, [replace(views[5], name="!new.png"), *views[:5]])
    shutil.copytree(old / "dense", new / "dense")
    model = read_reconstruction(new / "sparse" / "0")
    turn = np.array([0.1, 0.2, 0.3, 0.9])
    model.transform(pycolmap.Sim3d(3.0, pycolmap.Rotation3d(turn / np.linalg.norm(turn)), [5, -2, 1]))
    model.write(new / "sparse" / "0")
    counts = depth_stage(new, "b")
    kept = counts["kept_of_before"]
    assert 1 <= kept < 5
    assert counts["depth_maps"] == 6
    agreement = [one.agreement for _, one in read_standings(new / "dense" / "depth" / VIEWS).values()]
    assert None not in agreement
    assert counts["depth_agreement"] == pytest.approx(np.median(agreement), abs=1e-3)
    same = 0
    for number in range(1, 6):
        before, after = RunFolder(old).depth_map(number - 1), RunFolder(new).depth_map(number)
        truth = 3 * plane_depth(views[number - 1])
        known = after.depth > 0
        assert known.mean() > 0.5
        assert np.median(np.abs(after.depth - truth)[known] / truth[known]) < 2e-3
        same += bool(np.allclose(after.depth, 3 * before.depth, rtol=1e-6))
    assert same == kept
    # The photo goes again, and the world is the old one: what was kept comes back to the old unit.
    shutil.copytree(new / "dense", again / "dense", dirs_exist_ok=True)
    assert depth_stage(again, "c")["kept_of_before"] >= kept
    for number in range(5):
        one, two = (RunFolder(root).depth_map(number).depth for root in (old, again))
        both = (one > 0) & (two > 0)
        assert np.median(np.abs(one - two)[both] / one[both]) < 2e-3
    assert "kept_of_before" not in depth_stage(again, "d", reuse=False)


def posed(view: PinholeView, photo: str, focal: float = 1.0) -> Posed:
    K = view.K
    params = (focal * K[0, 0], focal * K[1, 1], K[0, 2], K[1, 2])
    pose = tuple(tuple(row) for row in view.cam_from_world.tolist())
    return Posed(photo, "PINHOLE", params, (view.width, view.height), pose)


@pytest.mark.parametrize(
    ("move", "focal", "stands"),
    [(0.0, 1.0, True), (0.002, 1.0, True), (0.05, 1.0, False), (0.0, 1.0005, True), (0.0, 1.01, False)],
)
def test_a_view_stands_while_no_pixel_moves_by_a_quarter(move: float, focal: float, stands: bool) -> None:
    """At depth 5 and focal length 170, a camera that moves by 0.05 moves pixels by 1.7 px; 1% of f by 0.8."""
    views = make_views(3)
    before = [posed(view, str(i)) for i, view in enumerate(views)]
    pose = views[1].cam_from_world.copy()
    pose[1, 3] += move
    moved = [views[0], replace(views[1], cam_from_world=pose), views[2]]
    now = {str(i): posed(view, str(i), focal) for i, view in enumerate(moved)}
    depth = plane_depth(views[0]).astype(np.float32)
    scale = Standing("s", before[0], tuple(before[1:])).scale_to(now, depth)
    assert (scale is not None) == stands
    if scale is not None:
        assert scale == pytest.approx(1.0, abs=0.01)
    del now["2"]
    assert Standing("s", before[0], tuple(before[1:])).scale_to(now, depth) is None
