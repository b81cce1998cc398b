"""A finished run against a scene whose cameras and surface are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recon.core.mesh import mesh_from_open3d
from recon.core.parallel import map_ordered
from recon.evaluation.poses import PoseReport, evaluate_poses, poses_from_colmap
from recon.evaluation.surface import SurfaceProtocol, SurfaceReport, evaluate_surface, truth_depths
from recon.io.cameras_json import read_cameras_json

# A share of so many points has a standard deviation of at most 0.16%.
_DEMO_SAMPLES = 100_000


@dataclass(frozen=True)
class SceneReport:
    """Errors of a run: cameras, dense points and mesh (None where the run left none); surfaces not view by view."""

    poses: PoseReport
    cloud: SurfaceReport | None
    mesh: SurfaceReport | None


def judge_scene(
    scene: Path,
    out: Path,
    thresholds: Sequence[float] = (0.01, 0.02, 0.05),
    samples: int = 400_000,
    most_judged: int | None = None,
) -> SceneReport:
    """Compare what a run left on disk with the truth of a rendered scene.

    Args:
        scene: folder with ``cameras.json`` and ``truth/mesh.ply`` (``recon.synthetic.files.write_scene``).
        out: the run's folder; ``sparse/0``, and ``dense/points.ply`` and ``mesh/mesh.ply`` if they are there.
        thresholds: distances in the truth's units.
        samples: samples of each mesh.
        most_judged: as of ``SurfaceProtocol``.

    Raises:
        ReconError: the scene or the run cannot be read.
        ValueError: fewer than two cameras in common.
    """
    from recon.io.surfaces import read_mesh, read_points_ply

    scene, out = Path(scene), Path(out)
    views = read_cameras_json(scene / "cameras.json")
    truth_poses = {name: view.cam_from_world for name, view in views.items()}
    poses = evaluate_poses(poses_from_colmap(out / "sparse" / "0"), truth_poses)
    truth = mesh_from_open3d(read_mesh(scene / "truth" / "mesh.ply"))
    every, how = list(views.values()), SurfaceProtocol(samples, by_view=False, most_judged=most_judged)
    seen = truth_depths(truth, every)

    def judged(surface: Path) -> SurfaceReport | None:
        if not surface.is_file():
            return None
        found = (
            mesh_from_open3d(read_mesh(surface))
            if surface.parent.name == "mesh"
            else read_points_ply(surface).xyz
        )
        return evaluate_surface(found, truth, every, thresholds, poses.truth_from_estimate, how, depths=seen)

    cloud, mesh = map_ordered(judged, [out / "dense" / "points.ply", out / "mesh" / "mesh.ply"], 2)
    return SceneReport(poses, cloud, mesh)


def judge_demo(scene: Path, out: Path) -> str:
    """Say in a few lines how far the demo's cameras and surface are from the truth.

    Args:
        scene: folder that ``recon.synthetic.presets.make_demo`` made.
        out: the run's folder.

    Raises:
        ReconError: the scene or the run cannot be read.
        ValueError: fewer than two cameras in common.
    """
    report = judge_scene(scene, out, samples=_DEMO_SAMPLES, most_judged=_DEMO_SAMPLES)
    poses = report.poses
    lines = [
        "How far from the truth (the scene is about 6.8 m wide, photographed from 4.4 m):",
        f"  cameras  {poses.registered} of {poses.total} placed; centres off by "
        f"{1000 * poses.center_mean:.1f} mm (mean), {1000 * poses.center_max:.1f} mm (worst); "
        f"directions by {poses.rotation_mean:.3f} degrees",
    ]
    for name, surface in (("points", report.cloud), ("mesh", report.mesh)):
        if surface is None:
            continue
        shares = "; ".join(
            f"within {1000 * t:.0f} mm: precision {100 * p:.0f}%, recall {100 * r:.0f}%, F {f:.2f}"
            for t, p, r, f in zip(
                surface.thresholds, surface.precision, surface.recall, surface.f_score, strict=True
            )
        )
        lines.append(f"  {name:<8} off by {1000 * surface.accuracy[1]:.1f} mm (median); {shares}")
    return "\n".join(lines)
