"""Photos predicted from what the others know of the depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from recon.core.cameras import PinholeView
from recon.dense.types import DepthMap
from recon.run.dense_scene import DenseScene
from recon.run.folder import RunFolder
from recon.synthetic.runs import write_true_run
from recon.tasks.prediction import photos_to_predict, predicted_photo, prediction_figures
from tests.support.dense_scenes import make_views, sphere_depth, texture, world_points

VIEWS = make_views(5)
OTHERS = [[j for j in range(5) if j != i] for i in range(5)]


def scene_of(root: Path, taken: list[PinholeView]) -> DenseScene:
    """A ball photographed from ``taken``; the run takes the photos for those of ``VIEWS``."""
    depths = [sphere_depth(view).astype(np.float32) for view in taken]
    greys = [
        texture(world_points(view, depth)) * (depth > 0) for view, depth in zip(taken, depths, strict=True)
    ]
    images = [np.repeat((255 * grey).astype(np.uint8)[..., None], 3, axis=2) for grey in greys]
    write_true_run(root, VIEWS, images, [sphere_depth(view).astype(np.float32) for view in VIEWS], tracks=100)
    return DenseScene.of_depth_maps(RunFolder(root))


def figures(scene: DenseScene) -> dict[str, float]:
    return predicted(scene, OTHERS, scene.depth_maps().__getitem__)


def predicted(
    scene: DenseScene, sources: Sequence[Sequence[int]], depth_of: Callable[[int], DepthMap]
) -> dict[str, float]:
    return prediction_figures(
        [predicted_photo(scene, index, sources[index], depth_of) for index in photos_to_predict(5)]
    )


def test_photos_of_right_cameras_are_predicted_and_one_that_stands_elsewhere_is_not(tmp_path: Path) -> None:
    right = figures(scene_of(tmp_path / "right", VIEWS))
    assert right["prediction"] > 0.9
    assert right["prediction_px"] <= right["worst_prediction_px"] < 0.3
    assert 0.2 < right["predicted_share"] < 0.7  # the ball, as far as others show it
    elsewhere = replace(VIEWS[4], cam_from_world=VIEWS[1].cam_from_world)
    moved = figures(scene_of(tmp_path / "moved", [*VIEWS[:4], elsewhere]))
    assert moved["worst_prediction_px"] > 2
    assert moved["prediction"] < right["prediction"]  # its colours come into what is said of the others


def test_the_photos_own_depth_is_not_asked(tmp_path: Path) -> None:
    scene = scene_of(tmp_path, VIEWS)
    nothing = np.zeros((VIEWS[0].height, VIEWS[0].width), np.float32)
    empty = DepthMap(nothing, np.zeros((*nothing.shape, 3), np.float32), nothing)

    def only(known: int) -> dict[str, float]:
        return predicted(scene, OTHERS, lambda i: scene.depth_maps()[i] if i == known else empty)

    # What photo 0 alone knows predicts the four others, and not itself.
    assert only(0)["prediction"] > 0.8
    alone = predicted(scene, [[0]] * 5, lambda i: scene.depth_maps()[i] if i == 1 else empty)
    assert alone == {}
