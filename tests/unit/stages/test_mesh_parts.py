"""The mesh stage on a cloud that is larger than its parts may be."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np

from recon.engine.stage import StageContext
from recon.io.surfaces import read_mesh
from recon.run.folder import RunFolder
from recon.stages.mesh import PARTS, MeshPart, MeshSettings, MeshStage
from recon.stages.texture import SEEN, FacesOfView, TextureStage
from recon.synthetic.paths import look_at, pinhole_views
from recon.synthetic.runs import write_true_run
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
    assert work.written == ["mesh/mesh.ply"]
    assert not work.path(PARTS).exists()
    mesh = read_mesh(tmp_path / "mesh" / "mesh.ply")
    assert len(mesh.triangles) == counts["faces"]
    assert np.abs(away(np.asarray(mesh.vertices) - centre)).max() < 0.01
    assert mesh.is_edge_manifold(allow_boundary_edges=False)

    texture = StageContext(tmp_path, "texture", "test")
    assert TextureStage().run(TextureStage.Settings(formats=["obj"]), texture)["seen_share"] > 0
    assert not texture.path(SEEN).exists()
    assert SEEN not in texture.written
    looked = pickle.loads(pickle.dumps(FacesOfView(tmp_path, tmp_path / "mesh", 82.0, 1 << 26, "token")))
    assert looked.lost(0) == 0
    assert len(looked.read(0).face) == 0

    folder = tmp_path / "parts"
    folder.mkdir()
    task = pickle.loads(pickle.dumps(MeshPart(tmp_path, folder, 18_000, 5, "token")))
    assert task(0) == 0
    first = task.file(0).read_bytes()
    task.file(0).write_bytes(b"kept")
    task(0)
    assert task.file(0).read_bytes() == b"kept"
    task.file(0).unlink()
    task(0)
    assert task.file(0).read_bytes() == first
    assert task.lost(1) == 1
    assert len(task.read(1).faces) == 0
