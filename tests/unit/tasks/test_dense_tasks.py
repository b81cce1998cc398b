"""Tasks of the stages after depth: in this process, and as other processes do them."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recon.core.mesh import FusedCloud, Mesh
from recon.core.raycasting import depth_and_normals
from recon.dense.types import DepthMap
from recon.engine.stage import StageContext
from recon.io.files import INCOMPLETE
from recon.io.manifest import KEPT
from recon.io.surfaces import read_mesh
from recon.run.folder import DEPTH, RunFolder, write_depth
from recon.stages import fuse
from recon.stages import mesh as mesh_stage
from recon.stages.fuse import FuseSettings, FuseStage
from recon.stages.mesh import MeshSettings, MeshStage
from recon.stages.texture import TextureStage
from recon.surface.meshing import poisson_mesh
from recon.synthetic.paths import look_at, pinhole_views
from recon.synthetic.runs import write_true_run
from recon.tasks.depth import DepthStep, last_steps, steps_of_views
from recon.tasks.meshing import PARTS, MeshPart, divide_cloud, views_and_offset
from recon.tasks.texturing import SEEN, FacesOfView
from tests.unit.surface.test_blocks import away, waves


def test_parts_are_tasks_whose_files_go_when_they_are_joined(tmp_path: Path) -> None:
    """Far from the origin too; a part that is there already is not made again; one that is lost leaves a hole."""
    centre = np.array([5e5, 4e6, 100.0])
    poses = [look_at(centre + np.array([x, -4.0, 0.0]), centre) for x in (-2.0, 2.0)]
    views = pinhole_views(poses, 64, 48, 60.0)
    blank = np.zeros((48, 64), np.float32)
    write_true_run(tmp_path, views, [np.zeros((48, 64, 3), np.uint8)] * 2, [blank + 3] * 2, tracks=50)
    cloud = waves(24_000)
    moved = replace(cloud, xyz=cloud.xyz + centre)
    RunFolder.of(StageContext(tmp_path, "fuse", "test")).write_cloud(moved)
    work = StageContext(tmp_path, "mesh", "test")
    counts = MeshStage().run(MeshSettings(block_points=18_000), work)
    assert counts["parts"] >= 2
    assert set(work.written) == {"mesh/mesh.ply", PARTS}
    assert not list(work.path(PARTS).glob("*.points"))
    made = read_mesh(tmp_path / "mesh" / "mesh.ply")
    assert len(made.triangles) == counts["faces"]
    assert np.abs(away(np.asarray(made.vertices) - centre)).max() < 0.01
    assert made.is_edge_manifold(allow_boundary_edges=False)
    colours = np.clip((np.asarray(made.vertices) - centre) * 0.4 + 0.5, 0, 1)
    assert np.abs(np.asarray(made.vertex_colors) - colours).mean() < 0.01

    painting = StageContext(tmp_path, "texture", "test")
    assert TextureStage().run(TextureStage.Settings(formats=["obj"]), painting)["seen_share"] > 0
    assert not painting.path(SEEN).exists()
    assert SEEN not in painting.written
    looked = pickle.loads(pickle.dumps(FacesOfView(tmp_path, tmp_path / "mesh", 82.0, 1 << 26, "token")))
    assert looked.lost(0) == 0
    assert len(looked.read(0).face) == 0

    folder = tmp_path / "parts"
    folder.mkdir()
    offset = views_and_offset(RunFolder(tmp_path))[1]
    plan = divide_cloud(RunFolder(tmp_path), offset, folder, 18_000)
    task = pickle.loads(pickle.dumps(MeshPart(tmp_path, folder, "half", plan.cell, 5)))
    near = (cloud.xyz + centre - offset).astype(np.float32)
    np.testing.assert_array_equal(task.points(1).xyz, near[plan.rows(near)[1]])
    assert task(0) == 0
    first = task.file(0).read_bytes()
    task.file(0).write_bytes(b"kept")
    task(0)
    assert task.file(0).read_bytes() == b"kept"
    assert replace(task, division="third").file(0) != task.file(0)
    task.file(0).unlink()
    task(0)
    assert task.file(0).read_bytes() == first
    assert task.lost(1) == 1
    assert len(task.read(1).faces) == 0


def test_parts_whose_points_stay_are_kept(tmp_path: Path) -> None:
    """Points change at one end: the other parts are taken over, and the mesh is the one made from nothing."""
    poses = [look_at(np.array([x, -4.0, 0.0]), np.zeros(3)) for x in (-2.0, 2.0)]
    views = pinhole_views(poses, 64, 48, 60.0)
    blank = np.zeros((48, 64), np.float32)
    write_true_run(tmp_path, views, [np.zeros((48, 64, 3), np.uint8)] * 2, [blank + 3] * 2, tracks=50)
    cloud, settings = waves(24_000), MeshSettings(block_points=10_000)

    def meshed(stage_cloud: FusedCloud, **context: Any) -> tuple[dict[str, Any], bytes]:
        RunFolder.of(StageContext(tmp_path, "fuse", "test")).write_cloud(stage_cloud)
        counts = MeshStage().run(settings, StageContext(tmp_path, "mesh", "test", **context))
        return counts, (tmp_path / "mesh" / "mesh.ply").read_bytes()

    first, bytes_of_first = meshed(cloud)
    assert first["parts"] >= 3
    assert KEPT not in first
    again, bytes_again = meshed(cloud)
    assert again[KEPT] == first["parts"]
    assert bytes_again == bytes_of_first

    far = cloud.xyz[:, 0] > np.quantile(cloud.xyz[:, 0], 0.98)
    changed = replace(cloud, xyz=cloud.xyz + np.float32(1e-3) * far[:, None])
    partly, bytes_of_partly = meshed(changed)
    assert 0 < partly[KEPT] < first["parts"]
    assert bytes_of_partly != bytes_of_first
    made = read_mesh(tmp_path / "mesh" / "mesh.ply")
    assert np.abs(away(np.asarray(made.vertices))).max() < 0.01
    assert made.is_edge_manifold(allow_boundary_edges=False)

    # A division that does not suit the points any more is not used again.
    rows = np.flatnonzero(cloud.xyz[:, 0] > 0)
    lopsided = FusedCloud(**{one.name: getattr(cloud, one.name)[rows] for one in fields(FusedCloud)})
    assert KEPT not in meshed(lopsided)[0]


def test_parts_are_as_small_as_the_memory_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poses = [look_at(np.array([x, -4.0, 0.0]), np.zeros(3)) for x in (-2.0, 2.0)]
    views = pinhole_views(poses, 64, 48, 60.0)
    blank = np.zeros((48, 64), np.float32)
    write_true_run(tmp_path, views, [np.zeros((48, 64, 3), np.uint8)] * 2, [blank + 3] * 2, tracks=50)
    RunFolder.of(StageContext(tmp_path, "fuse", "test")).write_cloud(waves(24_000))
    monkeypatch.setattr(mesh_stage, "_LEAST_PART", 10_000)
    counts = MeshStage().run(MeshSettings(), StageContext(tmp_path, "mesh", "test", memory=15_000 * 125))
    assert counts["parts"] >= 2
    counts = MeshStage().run(MeshSettings(), StageContext(tmp_path, "mesh", "test"))
    assert "parts" not in counts


class Apart:
    """Does tasks as another process would: each from its pickle, with nothing that this process has opened."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def map(self, task: Any, items: Sequence[int], on_done: Callable[[], None], *_: Any) -> list[Any]:
        found = []
        for item in items:
            getattr(task, "close", lambda: None)()
            found.append(pickle.loads(pickle.dumps(task))(pickle.loads(pickle.dumps(item))))
            self.done.append(type(task).__name__)
            on_done()
        return found


def test_other_processes_make_the_same_bytes(tmp_path: Path) -> None:
    poses = [look_at(np.array([x, -4.0, 0.5]), np.zeros(3)) for x in (-1.0, 0.0, 1.0)]
    views = pinhole_views(poses, 160, 120, 40.0)
    found = poisson_mesh(waves(20_000), trim_quantile=0.0, threads=1)
    ball = Mesh(np.asarray(found.vertices, np.float32), np.asarray(found.triangles, np.int32))
    both = [depth_and_normals(ball, view) for view in views]
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (120, 160, 3)).astype(np.uint8) for _ in views]
    results, clusters = [], (None, Apart())
    for number, cluster in enumerate(clusters):
        root = tmp_path / str(number)
        write_true_run(root, views, images, [depth for depth, _ in both], tracks=50)
        for view, (depth, normals) in zip(views, both, strict=True):
            known = (depth > 0).astype(np.float32)
            write_depth(root / DEPTH / f"{view.photo_id}.npz", DepthMap(depth, normals, known))
        for stage, settings in (
            (FuseStage(), FuseSettings()),
            (MeshStage(), MeshSettings(block_points=10_000)),
            (TextureStage(), TextureStage.Settings(faces=3000)),
        ):
            work = StageContext(root, stage.name, "test", cluster=cluster)
            stage.run(settings, work)
            assert not {fuse.PARTS, SEEN} & set(work.written)
        names = ("dense/points.ply", "mesh/mesh.ply", "mesh/textured.glb", "mesh/texture.jpg")
        results.append([(root / name).read_bytes() for name in names])
        assert not list((root / INCOMPLETE).glob("*"))
    assert results[0] == results[1]
    assert clusters[1] is not None
    assert set(clusters[1].done) == {"FuseView", "MeshPart", "FacesOfView"}


def test_a_view_asks_its_sources_once_they_have_come_as_far() -> None:
    """What is taken over, here the depth of view 1, is there already."""
    neighbours = [(1, 2), (0,), (3,), (2, 0)]
    steps, needs = steps_of_views(
        ["flow", "photometric", "geometric0"], [0, 2, 3], neighbours, ["a", "b", "c", "d"]
    )
    assert steps[3] == DepthStep("photometric", 0, "a")
    assert [(one.step, one.view) for one in steps[6:]] == [("geometric0", index) for index in (0, 2, 3)]
    assert needs == [(), (), (), (0,), (1,), (2,), (3, 4), (4, 5), (5, 4, 3)]


def test_a_photo_is_predicted_once_those_that_see_the_same_are_done() -> None:
    """View 1 is taken over."""
    neighbours = [(1, 2), (0,), (3,), (2, 0)]
    steps, needs = last_steps("final", [0, 2, 3], [0, 1, 3], neighbours, ["a", "b", "c", "d"])
    assert steps[2:4] == [DepthStep("final", 3, "d"), DepthStep("prediction", 0, "a")]
    assert needs == [(), (), (), (1,), (0,), (1, 0)]
