"""Scenes of any size: neighbours overlap, the walk closes, the same call gives the same photos."""

from __future__ import annotations

import numpy as np
import pytest

from recon.errors import UsageError
from recon.synthetic.large import make_large_scene, street_path


def overlap(scene, i: int, j: int) -> float:  # type: ignore[no-untyped-def]
    """Share of the surface in photo i that photo j sees too."""
    a, b, depth = scene.views[i], scene.views[j], scene.depths[i]
    y, x = np.nonzero(depth > 0)
    rays = np.stack([x, y, np.ones(len(x))], -1) @ np.linalg.inv(a.K).T
    world = (rays * depth[y, x, None] - a.cam_from_world[:, 3]) @ a.cam_from_world[:, :3]
    pixel, z = b.project(world)
    near = np.rint(pixel).astype(int)
    inside = (z > 0) & (near >= 0).all(1) & (near < (b.width, b.height)).all(1)
    there = scene.depths[j][near[inside][:, 1], near[inside][:, 0]]
    return float((np.abs(there - z[inside]) < 0.05 * z[inside]).sum() / len(x))


@pytest.mark.parametrize("photos", [40, 333, 1000])
def test_the_walk_closes_with_even_steps_at_every_length(photos: int) -> None:
    poses, side = street_path(photos)
    centers = np.array([-p[:, :3].T @ p[:, 3] for p in poses])
    steps = np.linalg.norm(centers - np.roll(centers, 1, axis=0), axis=1)
    assert len(poses) == photos
    assert 0.7 < steps.min() <= steps.max() < 1.1
    assert abs(4 * side + 6 * np.pi - 0.9 * photos) <= 4.01


@pytest.mark.parametrize(("name", "photos"), [("street", 40), ("block", 24)])
def test_neighbours_show_the_same_and_rendering_repeats(name: str, photos: int) -> None:
    scene, again = (make_large_scene(name, photos, (48, 36), 1, coarseness=8.0, samples=1) for _ in range(2))
    assert len(scene.images) == photos
    for one, two in zip(scene.images, again.images, strict=True):
        np.testing.assert_array_equal(one, two)
    following = [overlap(scene, i, (i + 1) % photos) for i in range(photos)]
    assert np.median(following) > 0.5
    if name == "street":
        assert min(following) > 0.4  # the last photo and the first among them
        assert overlap(scene, 0, photos // 2) < 0.05


def test_too_few_photos_are_refused() -> None:
    with pytest.raises(UsageError, match="needs 32 photos or more, not 3"):
        make_large_scene("street", 3)
    with pytest.raises(UsageError, match="there are: street, block, heights"):
        make_large_scene("moon", 100)
