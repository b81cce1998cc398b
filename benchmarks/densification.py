"""Depth, cloud and mesh of rendered scenes against the exact surface, with the cameras known.

The start of the refinement stands for triangulated flow: the true depth with 1% noise, and nothing at all in a third
of the image (blocks), so that the figures say what refinement, filter, fusion and meshing add, whatever the matcher.

    python benchmarks/densification.py [--scenes relief zoom object] [--width 480] [--threads 2]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from _common import machine, table

from recon.core.mesh import Mesh
from recon.dense.filtering import filter_depths
from recon.dense.fusion import fuse_depth_maps
from recon.dense.neighbours import select_neighbours
from recon.dense.refinement import refine_depth
from recon.dense.types import DepthMap
from recon.evaluation.depth import evaluate_depth
from recon.evaluation.surface import evaluate_surface
from recon.surface.meshing import clean_mesh, mesh_arrays, poisson_mesh, tsdf_mesh
from recon.synthetic.presets import make_scene
from recon.synthetic.scene import SyntheticScene

T = TypeVar("T")


def rough_start(scene: SyntheticScene, seed: int = 0) -> list[DepthMap]:
    """True depth with 1% noise and a third of it missing in blocks of 24 pixels."""
    rng = np.random.default_rng(seed)
    maps = []
    for depth in scene.depths:
        h, w = depth.shape
        keep = np.kron(rng.random((h // 24 + 1, w // 24 + 1)) > 1 / 3, np.ones((24, 24)))[:h, :w] > 0
        start = depth * (1 + rng.normal(0, 0.01, depth.shape)) * keep
        known = (start > 0).astype(np.float32)
        maps.append(DepthMap(start.astype(np.float32), np.zeros((h, w, 3), np.float32), known))
    return maps


def shared_points(scene: SyntheticScene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points on the true surface and who sees them, for the choice of neighbours."""
    rng = np.random.default_rng(0)
    xyz = scene.mesh.vertices[rng.choice(len(scene.mesh.vertices), 3000)]
    point, photo = [], []
    for view, depth in zip(scene.views, scene.depths, strict=True):
        camera = xyz @ view.cam_from_world[:, :3].T + view.cam_from_world[:, 3]
        pixel = camera @ view.K.T
        u, v = (np.round(pixel[:, i] / np.maximum(pixel[:, 2], 1e-9)).astype(int) for i in (0, 1))
        inside = (camera[:, 2] > 0) & (u >= 0) & (v >= 0) & (u < view.width) & (v < view.height)
        at = np.flatnonzero(inside)
        seen = at[np.abs(depth[v[at], u[at]] - camera[at, 2]) < 0.02 * camera[at, 2]]
        point.append(seen)
        photo.append(np.full(len(seen), view.photo_id))
    return xyz, np.concatenate(point), np.concatenate(photo)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", nargs="+", default=["relief", "zoom", "object"])
    parser.add_argument("--width", type=int, default=480)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=2)
    args = parser.parse_args()
    depth_rows: list[list[Any]] = []
    surface_rows: list[list[Any]] = []
    time_rows: list[list[Any]] = []
    for name in args.scenes:
        scene = make_scene(name, (args.width, args.width * 3 // 4))
        views, grey = scene.views, [image.mean(axis=2).astype(np.float32) / 255 for image in scene.images]
        near = select_neighbours(views, *shared_points(scene), count=5)
        seconds: dict[str, float] = {}

        def clock(what: str, work: Callable[[], T], into: dict[str, float] = seconds) -> T:
            wall, cpu = time.perf_counter(), time.process_time()
            result = work()
            into[what] = time.perf_counter() - wall
            into[what + " CPU"] = time.process_time() - cpu
            return result

        def refine(
            start: list[DepthMap],
            last: bool,
            views=views,
            grey=grey,
            near=near,  # type: ignore[no-untyped-def]
        ) -> list[DepthMap]:
            return [
                refine_depth(
                    view,
                    grey[i],
                    [(views[j], grey[j]) for j in near[i]],
                    start[i],
                    neighbour_depths=[start[j] for j in near[i]] if last else None,
                    iterations=1 if last else args.iterations,
                    levels=1 if last else 3,
                )
                for i, view in enumerate(views)
            ]

        start = rough_start(scene)
        stages = [("start", start)]
        stages.append(("photometric", clock("photometric", lambda s=start: refine(s, False))))
        stages.append(("geometric", clock("geometric", lambda s=stages[-1][1]: refine(s, True))))
        last = stages[-1][1]
        filtered = clock("filter", lambda v=views, s=last: filter_depths(v, s, threads=args.threads))
        stages.append(("filtered", filtered))
        for what, maps in stages:
            reports = [evaluate_depth(d.depth, t) for d, t in zip(maps, scene.depths, strict=True)]
            depth_rows.append(
                [
                    name,
                    what,
                    f"{np.mean([r.coverage for r in reports]):.1%}",
                    *(f"{np.mean([r.within[t] for r in reports]):.1%}" for t in (0.001, 0.005, 0.01)),
                ]
            )
        images = list(scene.images)
        cloud = clock(
            "fusion", lambda v=views, s=filtered, i=images: fuse_depth_maps(v, s, i, threads=args.threads)
        )
        poisson = clock("Poisson", lambda c=cloud: clean_mesh(poisson_mesh(c, depth=9), support=c.xyz))
        tsdf = clock(
            "TSDF",
            lambda v=views, s=filtered, i=images, c=cloud: clean_mesh(tsdf_mesh(v, s, i), support=c.xyz),
        )
        for what, estimate in (
            ("cloud", cloud.xyz),
            ("Poisson", Mesh(*mesh_arrays(poisson))),
            ("TSDF", Mesh(*mesh_arrays(tsdf))),
        ):
            report = evaluate_surface(estimate, scene.mesh, views, thresholds=(0.005, 0.01, 0.02))
            row: list[Any] = [name, what]
            for p, r in zip(report.precision, report.recall, strict=True):
                row.append(f"{p:.3f} / {r:.3f} / {2 * p * r / max(p + r, 1e-9):.3f}")
            surface_rows.append(row)
        keys = ("photometric", "geometric", "filter", "fusion", "Poisson", "TSDF")
        time_rows.append(
            [name, len(views), len(cloud)] + [f"{seconds[k]:.1f} ({seconds[k + ' CPU']:.1f})" for k in keys]
        )
    size = f"{args.width}x{args.width * 3 // 4}"
    print(f"Rendered scenes at {size}, cameras known, one run each; {machine()}\n")
    print(table(depth_rows, ["scene", "depth maps", "coverage", "< 0.1%", "< 0.5%", "< 1%"]), "\n")
    print("Surface: precision / recall / F at each distance (scene units; the facade is 6.8 wide)\n")
    print(table(surface_rows, ["scene", "surface", "5 mm", "10 mm", "20 mm"]), "\n")
    print(f"Wall (CPU) seconds with {args.threads} threads\n")
    print(
        table(
            time_rows,
            ["scene", "photos", "points", "photometric", "geometric", "filter", "fusion", "Poisson", "TSDF"],
        )
    )


if __name__ == "__main__":
    main()
