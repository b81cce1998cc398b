"""Warps of photos and rendered views, whose flow is known."""

from __future__ import annotations

import cv2
import numpy as np

from recon.datasets.types import true_camera
from recon.synthetic.warps import random_warp, visible_positions


def test_a_warp_is_where_it_says() -> None:
    """The warped image, read at known places, shows the original's colours (up to the change of light)."""
    rng = np.random.default_rng(1)
    image = cv2.GaussianBlur(rng.random((80, 100, 3)).astype(np.float32), (0, 0), 3)
    image = (255 * (image - image.min()) / np.ptp(image)).astype(np.uint8)
    pair = random_warp(image, rng)
    inside = ((pair.position > 2) & (pair.position < (97, 77))).all(-1)
    assert inside.mean() > 0.5
    original = cv2.remap(
        pair.original.astype(np.float32), pair.position[..., 0], pair.position[..., 1], cv2.INTER_LINEAR
    )
    for channel in range(3):
        correlation = np.corrcoef(original[inside][:, channel], pair.warped[inside][:, channel])[0, 1]
        assert correlation > 0.97
    # It bends: no affine map fits it, and it is one to one.
    y, x = np.mgrid[0:80, 0:100]
    design = np.column_stack([x.ravel(), y.ravel(), np.ones(x.size)])
    flat = pair.position.reshape(-1, 2)
    rest = flat - design @ np.linalg.lstsq(design, flat, rcond=None)[0]
    assert 0.3 < np.abs(rest).max() < 40
    jacobian = np.gradient(pair.position[..., 0], axis=1) * np.gradient(pair.position[..., 1], axis=0)
    assert (jacobian > 0).mean() > 0.98


def test_rendered_views_see_a_plane_where_algebra_says() -> None:
    K = np.array([[50.0, 0, 31.5], [0, 50.0, 23.5], [0, 0, 1]])
    a = true_camera(64, 48, K, np.eye(3), np.zeros(3))
    b = true_camera(64, 48, K, np.eye(3), np.array([-0.2, 0.1, 0.0]))
    depth = np.full((48, 64), 2.0, np.float32)
    hidden = depth.copy()
    hidden[:, 40:] = 1.0  # something stands in front, for B
    found = visible_positions(depth, hidden, a, b)
    y, x = np.mgrid[0:48, 0:64]
    expected = np.stack([x - 5, y + 2.5], -1)
    seen = np.isfinite(found).all(-1)
    np.testing.assert_allclose(found[seen], expected[seen], atol=1e-4)
    inside = (expected[..., 0] >= 0) & (expected[..., 1] <= 47)
    assert (seen == (inside & (np.rint(expected[..., 0]) < 40))).all()
