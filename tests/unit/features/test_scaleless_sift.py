"""Scale-less SIFT against the release's rule pixel by pixel, and over a change of scale."""

from __future__ import annotations

import cv2
import numpy as np

from recon.features.scaleless_sift import (
    SIGMAS,
    common_components,
    descriptors_over_scales,
    scaleless_sift,
)
from tests.support.matcher_contract import textured


def test_a_pixel_is_the_triangle_of_its_projection() -> None:
    """Singular vectors of the centred descriptors, B Bᵀ with half the diagonal, row by row of the upper triangle."""
    scales = descriptors_over_scales(textured(24, 30))
    assert len(scales) == len(SIGMAS) == 20
    components = common_components(scales, scales, 12)
    got = scaleless_sift(scales, components, 6)
    assert got.shape == (24, 30, 78)
    for y, x in ((0, 0), (11, 17), (23, 5)):
        matrix = np.stack([one[y, x].astype(float) @ components for one in scales], 1)
        basis = np.linalg.svd(matrix - matrix.mean(1, keepdims=True))[0][:, :6]
        projection = basis @ basis.T
        projection[np.diag_indices(12)] /= 2
        expected = [projection[i, j] for i in range(12) for j in range(i, 12)]
        np.testing.assert_allclose((got[y, x].astype(float) - 128) / 255, expected, atol=0.004)


def test_components_are_those_of_the_covariance() -> None:
    scales = descriptors_over_scales(textured(12, 15))
    components = common_components(scales, scales, 5)
    every = np.stack(scales).reshape(-1, 128).astype(float)
    centred = every - every.mean(0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs((directions[:5] * components.T).sum(1)), 1, atol=1e-4)


def test_no_texture_is_the_middle() -> None:
    flat = descriptors_over_scales(np.full((20, 20, 3), 90, np.uint8))
    rich = descriptors_over_scales(textured(20, 20))
    assert (scaleless_sift(flat, common_components(flat, rich)) == 128).all()


def test_a_change_of_scale_is_borne_better_than_by_one_scale() -> None:
    """Nearest descriptor of places of a photo in its enlargement by 2.5, with what one scale of SIFT finds."""
    photo = cv2.GaussianBlur(textured(64, 64, seed=3), (0, 0), 2)
    large = cv2.resize(photo, None, fx=2.5, fy=2.5, interpolation=cv2.INTER_CUBIC)
    rows, columns = (axis.ravel() for axis in np.mgrid[16:48:4, 16:48:4])
    target = np.stack([(columns + 0.5) * 2.5 - 0.5, (rows + 0.5) * 2.5 - 0.5], 1)
    scales = [descriptors_over_scales(one) for one in (photo, large)]
    components = common_components(*scales)
    kinds = {
        "sls": [scaleless_sift(one, components) for one in scales],
        "sift": [one[4] for one in scales],
    }
    share = {}
    for name, (a, b) in kinds.items():
        own = a[rows, columns].astype(np.float32)
        other = b[::2, ::2].reshape(-1, b.shape[2]).astype(np.float32)
        best = (np.square(other).sum(1) - 2 * own @ other.T).argmin(1)
        width = b[::2, ::2].shape[1]
        found = 2.0 * np.stack([best % width, best // width], 1)
        share[name] = (np.linalg.norm(found - target, axis=1) < 8).mean()
    assert share["sls"] > 0.5
    assert share["sls"] > share["sift"] + 0.2
