"""Left-out views: measures against plain NumPy twins, predictions against analytic pictures."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import correlate1d

from recon.core.mesh import Mesh
from recon.evaluation.depth import evaluate_depth
from recon.evaluation.views import compare_view, predict_from_cloud, predict_from_mesh, psnr, ssim, ssim_map
from recon.synthetic.paths import look_at, pinhole_views

VIEW = pinhole_views([look_at((0, 0, 4), (0, 0, 0), up=(0, 1, 0))], 64, 48, field_of_view=40)[0]


def photo(seed: int, h: int = 40, w: int = 50) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3)).astype(np.uint8)


def test_psnr_by_hand() -> None:
    a = np.full((4, 4, 3), 100, np.uint8)
    b = a.copy()
    b[0, 0] = 110
    assert psnr(a, b) == pytest.approx(10 * np.log10(255**2 / (100 / 16)))
    mask = np.zeros((4, 4), bool)
    assert np.isnan(psnr(a, b, mask))
    mask[1] = True
    assert psnr(a, b, mask) == np.inf


def test_ssim_is_wangs_equation() -> None:
    """The twin: windows by SciPy, one channel at a time."""
    a, b = photo(0), photo(1)
    window = np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2)
    window /= window.sum()

    def blur(values: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(values, window, 0, mode="reflect"), window, 1, mode="reflect")

    expected = np.zeros(a.shape)
    for c in range(3):
        x, y = a[..., c].astype(float), b[..., c].astype(float)
        mx, my = blur(x), blur(y)
        vx, vy, vxy = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
        c1, c2 = 6.5025, 58.5225
        expected[..., c] = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    np.testing.assert_allclose(ssim_map(a, b), expected.mean(axis=-1), atol=1e-9)
    assert ssim(a, a) == pytest.approx(1.0)
    # Constant images: only the term of the means is left.
    p, q = np.full((20, 20, 3), 50, np.uint8), np.full((20, 20, 3), 100, np.uint8)
    assert ssim(p, q) == pytest.approx((2 * 50 * 100 + 6.5025) / (50**2 + 100**2 + 6.5025))


def test_ssim_of_a_mask_does_not_look_outside() -> None:
    a, b = photo(2), photo(2)
    mask = np.zeros(a.shape[:2], bool)
    mask[5:35, 5:45] = True
    b[~mask] = 0
    assert ssim(a, b, mask) == pytest.approx(1.0)
    assert np.isnan(ssim(a, b, mask & (np.arange(50) < 12)))


def test_exposure_is_taken_out() -> None:
    a = photo(3) // 2
    covered = np.ones(a.shape[:2], bool)
    covered[:, :10] = False
    report = compare_view((a * 0.5).astype(np.uint8), covered, a)
    assert report.gain == pytest.approx((2, 2, 2), rel=0.02)
    assert report.psnr > 45
    assert report.coverage == pytest.approx(0.8)
    assert compare_view((a * 0.5).astype(np.uint8), covered, a, fit_exposure=False).psnr < 20


def test_mesh_prediction_of_a_gradient() -> None:
    """A plane whose colour grows with x: the picture is a linear ramp at known places."""
    vertices = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32)
    colors = np.array([[0, 9, 9], [200, 9, 9], [200, 9, 9], [0, 9, 9]], np.uint8)
    mesh = Mesh(vertices, np.array([[0, 1, 2], [0, 2, 3]], np.int32), colors)
    picture, covered = predict_from_mesh(mesh, VIEW)
    x = (np.arange(64) - VIEW.K[0, 2]) / VIEW.K[0, 0] * 4
    inside = np.abs(x) < 0.95
    assert covered[24, inside].all()
    assert not covered[24, np.abs(x) > 1.05].any()
    np.testing.assert_allclose(picture[24, inside, 0], (100 * (x + 1))[inside], atol=1.0)
    assert (picture[24, inside, 1] == 9).all()


def test_cloud_prediction_hides_what_is_behind() -> None:
    side = np.linspace(-0.8, 0.8, 60)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    near = np.column_stack([grid * 0.5, np.full(len(grid), 1.0)])
    far = np.column_stack([grid * 1.2, np.full(len(grid), 0.0)])
    xyz = np.concatenate([far, near])
    rgb = np.repeat(np.array([[200, 0, 0], [0, 0, 200]], np.uint8), len(grid), axis=0)
    picture, covered = predict_from_cloud(xyz, rgb, VIEW)
    x = (np.arange(64) - VIEW.K[0, 2]) / VIEW.K[0, 0]
    front = np.abs(x * 3) < 0.35
    assert covered[24, front].all()
    assert (picture[24, front] == [0, 0, 200]).all()
    back = (np.abs(x * 4) < 0.9) & (np.abs(x * 3) > 0.5)
    assert (picture[24, back & covered[24]] == [200, 0, 0]).all()
    assert covered[24, back].mean() > 0.9
    empty = predict_from_cloud(np.zeros((0, 3)), np.zeros((0, 3), np.uint8), VIEW)
    assert not empty[1].any()


def test_depth_errors_by_hand() -> None:
    truth = np.array([[2.0, 2.0], [4.0, 0.0]])
    depth = np.array([[2.0, 2.02], [0.0, 1.0]])
    report = evaluate_depth(depth, truth, thresholds=(0.005, 0.02))
    assert report.coverage == pytest.approx(2 / 3)
    assert report.mean == pytest.approx(0.01)
    assert report.relative == pytest.approx(0.005)
    assert report.within == pytest.approx({0.005: 0.5, 0.02: 1.0})
    assert evaluate_depth(np.zeros((2, 2)), truth).coverage == 0.0
    with pytest.raises(ValueError, match="nowhere"):
        evaluate_depth(depth, np.zeros((2, 2)))
