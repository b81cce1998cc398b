"""Scenes that fold: equal elements are equal to the last bit, own detail is not, and cameras see what they should."""

from __future__ import annotations

import numpy as np
import pytest

from recon.errors import UsageError
from recon.synthetic.materials import SurfaceSamples
from recon.synthetic.presets import presets
from recon.synthetic.repeated import REPEATED_SCENES, joined, make_repeated_scene, wall


def colours(own: float, offset: float, walls: int = 1) -> np.ndarray:
    """Reflectance along a line on the first or the last of some walls."""
    parts = [wall((0, 4.0 * i), (8, 4.0 * i), 3.0, 2.0, 3.0, 0, own, 0.25) for i in range(walls)]
    mesh, albedo = joined(parts, 0)
    count = 200
    u = np.linspace(0.05, 1.95, count)
    xyz = np.column_stack([u + offset, np.full(count, 4.0 * (walls - 1)), np.linspace(0.2, 2.8, count)])
    last = np.full(count, len(mesh.faces) - 1, np.int32)
    normal = np.tile(np.float32([0, -1, 0]), (count, 1))
    weights = np.full((count, 3), 1 / 3, np.float32)
    return albedo(
        SurfaceSamples(xyz.astype(np.float32), normal, last, weights, np.full(count, 0.01, np.float32))
    )


@pytest.mark.parametrize("period", [2.0, 4.0])
def test_bays_and_walls_are_alike_but_for_their_own_detail(period: float) -> None:
    np.testing.assert_allclose(colours(0.0, 0.0), colours(0.0, period), atol=2e-3)
    np.testing.assert_allclose(colours(0.0, 0.0), colours(0.0, 0.0, walls=3), atol=2e-3)
    assert np.abs(colours(0.4, 0.0) - colours(0.4, period)).mean() > 0.01
    assert np.abs(colours(0.4, 0.0) - colours(0.4, 0.0, walls=3)).mean() > 0.01
    assert colours(0.0, 0.0).std() > 0.05  # windows and plaster differ


def test_the_figure_is_pale_smooth_and_before_black() -> None:
    scene = make_repeated_scene("figure", size=(64, 48), coarseness=6.0)
    assert len(scene.images) == 16
    for image, mask in zip(scene.images, scene.masks, strict=True):
        assert 0.05 < mask.mean() < 0.6
        assert image[~mask].mean() < 30
        assert image[mask].mean() > 90


def test_names() -> None:
    assert set(REPEATED_SCENES) <= set(presets())
    with pytest.raises(UsageError, match="courtyard"):
        make_repeated_scene("cathedral")
