"""Sub-pixel refinement on textures warped exactly."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from recon.core.kernels import kernel
from recon.core.vectors import cubic, load, store
from recon.graph.tracks import make_tracks
from recon.graph.types import Tracks
from recon.sfm.patch_alignment import align_patches, solve_tracks
from recon.sfm.track_refinement import (
    RefinementSettings,
    affine_warps,
    blur_levels,
    homographies,
    refine_tracks,
    warp_jacobians,
    with_references,
)


def smooth(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A texture that is known at every point, so that warped photos need no interpolation."""
    rng = np.random.default_rng(7)
    value = np.full(np.broadcast(x, y).shape, 128.0)
    for _ in range(40):
        angle, wavelength = rng.uniform(0, np.pi), rng.uniform(6, 40)
        phase = rng.uniform(0, 2 * np.pi)
        value = value + 7 * np.sin((np.cos(angle) * x + np.sin(angle) * y) * 2 * np.pi / wavelength + phase)
    return value


def photo(
    M: np.ndarray, size: tuple[int, int] = (160, 130), gain: float = 1.0, offset: float = 0.0
) -> np.ndarray:
    """The texture as seen by a photo in which texture point p lies at M @ (p, 1)."""
    xs, ys = np.meshgrid(np.arange(size[0], dtype=float), np.arange(size[1], dtype=float))
    inverse = np.linalg.inv(np.vstack([M, [0, 0, 1]]))
    x = inverse[0, 0] * xs + inverse[0, 1] * ys + inverse[0, 2]
    y = inverse[1, 0] * xs + inverse[1, 1] * ys + inverse[1, 2]
    return (gain * smooth(x, y) + offset).astype(np.float32)


MAPS = [
    np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
    np.array([[1.0, 0.0, 2.37], [0.0, 1.0, -1.81]]),
    np.array([[1.08, 0.10, -3.4], [-0.07, 0.95, 2.2]]),
    np.array([[0.90, -0.14, 12.6], [0.12, 0.97, -5.3]]),
]
ANCHORS = np.stack(np.meshgrid(np.arange(40, 120, 16.0), np.arange(40, 95, 13.0)), -1).reshape(-1, 2)


def tracks_with_error(
    error: float, seed: int = 0, affine: bool = True, photos: int = 4
) -> tuple[Tracks, np.ndarray]:
    """Tracks of the anchors with noise on all but the reference, and the exact positions."""
    rng = np.random.default_rng(seed)
    track, seen, exact, reference, affinity = [], [], [], [], []
    for t, anchor in enumerate(ANCHORS):
        for i in range(photos):
            track.append(t)
            seen.append(i)
            exact.append(MAPS[i][:, :2] @ anchor + MAPS[i][:, 2])
            reference.append(i == 0)
            affinity.append(MAPS[i][:, :2] if affine else np.eye(2))
    truth = np.array(exact)
    noise = rng.uniform(-error, error, truth.shape) * ~np.array(reference)[:, None]
    tracks = make_tracks(
        np.array(track), np.array(seen), truth + noise, np.array(reference), np.array(affinity)
    )
    return tracks, truth.astype(np.float32)


def match_rows(refined: Tracks, truth: np.ndarray, photos: int = 4) -> np.ndarray:
    """Errors of refined observations; no track disappears in these tests, so numbers stay."""
    return np.linalg.norm(refined.xy - truth[refined.track_id * photos + refined.photo_id], axis=1)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_known_warps_are_recovered(joint: bool, affine: bool) -> None:
    images = [
        photo(MAPS[0]),
        photo(MAPS[1], gain=1.3, offset=-20),
        photo(MAPS[2], gain=0.8),
        photo(MAPS[3], offset=9),
    ]
    tracks, truth = tracks_with_error(1.2, affine=affine)
    assert match_rows(tracks, truth).max() > 1.0
    refined = refine_tracks(images, tracks, RefinementSettings(joint=joint, max_shift=5))
    assert refined.count == tracks.count
    assert len(refined.track_id) >= 0.97 * len(tracks.track_id)
    error = match_rows(refined, truth)
    assert np.median(error) < 0.01
    assert error.max() < 0.05
    assert refined.affinity is not None
    np.testing.assert_allclose(refined.affinity, np.array(MAPS)[refined.photo_id][:, :, :2], atol=0.02)


@pytest.mark.filterwarnings("error")
def test_patches_that_reach_over_what_is_no_number_are_not_aligned() -> None:
    images = [photo(M) for M in MAPS]
    tracks, truth = tracks_with_error(1.0, seed=4)
    whole = refine_tracks(images, tracks)
    images[2][:, 100:] = np.nan
    part = refine_tracks(images, tracks)
    assert np.isfinite(part.xy).all()
    error = match_rows(part, truth)
    assert np.median(error) < 0.01
    assert error.max() < 0.05
    reach = RefinementSettings.radius
    seen = part.photo_id == 2
    assert part.xy[seen, 0].max() < 100 - reach
    # Elsewhere, in that photo and in the others, nothing is lost.
    for photo_id, limit in ((0, 160), (1, 160), (2, 80), (3, 160)):
        counts = [int(((one.photo_id == photo_id) & (one.xy[:, 0] < limit)).sum()) for one in (whole, part)]
        assert counts[0] == counts[1] > 0


def test_references_stay_where_they_are_and_threads_change_nothing() -> None:
    images = [photo(M) for M in MAPS]
    tracks, truth = tracks_with_error(1.0, seed=4)
    one, two = (refine_tracks(images, tracks, threads=threads) for threads in (1, 2))
    np.testing.assert_array_equal(one.xy, two.xy)
    assert one.is_reference is not None
    np.testing.assert_array_equal(one.xy[one.is_reference], truth[::4])


def test_noise_is_averaged_by_all_pairs() -> None:
    """With noisy photos, using all pairs of a track must not be worse than the reference's pairs alone."""
    rng = np.random.default_rng(2)
    images = [photo(M) + rng.normal(0, 6, (130, 160)).astype(np.float32) for M in MAPS]
    tracks, truth = tracks_with_error(0.8)
    alone, joint = (
        match_rows(refine_tracks(images, tracks, RefinementSettings(joint=flag)), truth)
        for flag in (False, True)
    )
    assert np.sqrt((joint**2).mean()) <= 1.05 * np.sqrt((alone**2).mean())
    assert np.median(joint) < 0.1  # grey noise of 6 against a contrast of some 30


def test_observations_that_see_something_else_are_dropped() -> None:
    images = [photo(M) for M in MAPS]
    images[3] = np.random.default_rng(0).uniform(0, 255, images[3].shape).astype(np.float32)
    tracks, _ = tracks_with_error(0.5)
    refined = refine_tracks(images, tracks)
    assert (refined.photo_id == 3).sum() <= 1
    assert (refined.photo_id == 2).sum() >= len(ANCHORS) - 1
    kept = refine_tracks(images, tracks, RefinementSettings(keep_unrefined=True))
    assert len(kept.track_id) == len(tracks.track_id)


def test_half_size_views_are_matched_without_aliasing() -> None:
    half = np.array([[0.5, 0.0, 0.2], [0.0, 0.5, -0.1]])
    # A photo taken from twice as far averages over its pixels.
    fine = photo(MAPS[0], (320, 260))
    coarse = cv2.GaussianBlur(fine, (0, 0), 0.9)
    xs, ys = np.meshgrid(np.arange(160.0), np.arange(130.0))
    inverse = np.linalg.inv(np.vstack([half, [0, 0, 1]]))
    small = map_coordinates(
        coarse, [inverse[1, 1] * ys + inverse[1, 2], inverse[0, 0] * xs + inverse[0, 2]], order=3
    )
    rng = np.random.default_rng(0)
    anchors = rng.uniform([60, 60], [230, 190], (30, 2))
    exact = anchors @ half[:, :2].T + half[:, 2]
    for reference in (0, 1):
        tracks = make_tracks(
            np.repeat(np.arange(30), 2),
            np.tile([0, 1], 30),
            np.stack([anchors, exact + rng.uniform(-0.5, 0.5, exact.shape)], axis=1).reshape(-1, 2)
            if reference == 0
            else np.stack([anchors + rng.uniform(-0.8, 0.8, exact.shape), exact], axis=1).reshape(-1, 2),
            np.tile([reference == 0, reference == 1], 30),
            np.tile(
                [np.eye(2), 0.5 * np.eye(2)] if reference == 0 else [2 * np.eye(2), np.eye(2)], (30, 1, 1)
            ),
        )
        refined = refine_tracks([fine, small.astype(np.float32)], tracks)
        assert refined.count >= 25
        rows_a, rows_b = refined.photo_id == 0, refined.photo_id == 1
        predicted = refined.xy[rows_a] @ half[:, :2].T + half[:, 2]
        assert np.median(np.linalg.norm(predicted - refined.xy[rows_b], axis=1)) < 0.03


def test_patches_at_the_border_and_flat_patches_fail_cleanly() -> None:
    image = blur_levels(photo(MAPS[0]))
    flat = blur_levels(np.full((130, 160), 90, np.float32))
    starts = np.array([[2.0, 60.0], [80.0, 60.0]])
    warps = affine_warps(starts, np.broadcast_to(np.eye(2), (2, 2, 2)))
    _, found = align_patches(image, image, starts, warps, 10, 10, 6)
    assert found[0] == -1
    assert found[1] == pytest.approx(1.0, abs=1e-5)
    assert (align_patches(flat, image, starts, warps, 10, 10, 6)[1] == -1).all()
    assert (align_patches(image, flat, starts, warps, 10, 10, 2)[1] == -1).all()


def twin_align(
    source: np.ndarray, target: np.ndarray, start: np.ndarray, xy: np.ndarray, radius: int
) -> np.ndarray:
    """Translation by Gauss-Newton on normalised patches (forward additive) with SciPy's splines."""
    axis = np.arange(-radius, radius + 1.0)
    v, u = np.meshgrid(axis, axis, indexing="ij")
    weight = np.exp(-0.5 * (u**2 + v**2) / (0.6 * radius + 0.6) ** 2)
    weight /= weight.sum()

    def normalised(image: np.ndarray, at: np.ndarray) -> np.ndarray:
        patch = map_coordinates(image.astype(float), [at[1] + v, at[0] + u], order=3)
        patch = patch - (weight * patch).sum()
        return np.asarray(patch / np.sqrt((weight * patch**2).sum()))

    template = normalised(source, start)
    at = xy.astype(float).copy()
    for _ in range(30):
        h = 1e-3
        J = np.stack(
            [
                (
                    normalised(target, at + np.array([h, 0])) - normalised(target, at - np.array([h, 0]))
                ).ravel()
                / (2 * h),
                (
                    normalised(target, at + np.array([0, h])) - normalised(target, at - np.array([0, h]))
                ).ravel()
                / (2 * h),
            ],
            axis=1,
        )
        residual = (template - normalised(target, at)).ravel()
        at = at + np.linalg.solve(J.T @ (weight.ravel()[:, None] * J), J.T @ (weight.ravel() * residual))
    return at


def test_alignment_agrees_with_its_plain_twin() -> None:
    rng = np.random.default_rng(1)
    source = photo(MAPS[0]) + rng.normal(0, 2, (130, 160)).astype(np.float32)
    target = photo(MAPS[1], gain=1.2) + rng.normal(0, 2, (130, 160)).astype(np.float32)
    starts = ANCHORS[:8]
    guess = starts + MAPS[1][:, 2] + rng.uniform(-0.7, 0.7, starts.shape)
    warps, found = align_patches(
        blur_levels(source),
        blur_levels(target),
        starts,
        affine_warps(guess, np.tile(np.eye(2), (8, 1, 1))),
        9,
        30,
        2,
    )
    assert (found > 0.9).all()
    for i in range(8):
        expected = twin_align(source, target, starts[i], guess[i], 9)
        # Template and image gradients weigh noise differently; the minimum is nearly the same.
        np.testing.assert_allclose(warps[i, :2, 2], expected, atol=0.04)


@kernel()
def _sixteen(image, x, y, out):  # type: ignore[no-untyped-def]
    store(out, 0, cubic(image, 0, image.shape[1], load(x, 0), load(y, 0)))


def test_sampling_reproduces_quadratics_and_pixels() -> None:
    ys, xs = np.mgrid[0:20, 0:30].astype(np.float32)
    image = (0.3 * xs * xs - 0.2 * xs * ys + 0.1 * ys * ys + 2 * xs - ys + 5).astype(np.float32)
    x, y = np.random.default_rng(0).uniform(1, 17, (2, 16)).astype(np.float32)
    x[:4], y[:4] = [4, 10.3, 15.5, 27], [7, 9.8, 3.25, 17]
    out = np.empty(16, np.float32)
    _sixteen(image, x, y, out)
    expected = 0.3 * x * x - 0.2 * x * y + 0.1 * y * y + 2 * x - y + 5
    np.testing.assert_allclose(out, expected, atol=1e-3)


def test_joint_solution_is_the_least_squares_one() -> None:
    """Consistent measurements of five observations are met exactly; one gross error is voted down."""
    rng = np.random.default_rng(3)
    A = rng.normal(0, 0.1, (5, 2, 2)) + np.eye(2)
    A[0] = np.eye(2)
    truth = rng.normal(0, 0.3, (5, 2))
    truth[0] = 0
    source, target = np.array([(i, j) for i in range(5) for j in range(5) if i < j]).T
    relative = A[target] @ np.linalg.inv(A[source])
    measured = truth[target] - np.einsum("nij,nj->ni", relative, truth[source])
    fixed = np.arange(5) == 0
    rows, measurements = np.array([0, 5]), np.array([0, len(source)])
    shifts = solve_tracks(rows, measurements, source, target, measured, relative, fixed)
    np.testing.assert_allclose(shifts, truth, atol=1e-6)
    spoiled = measured.copy()
    spoiled[2] += [1.5, -1.0]
    shifts = solve_tracks(rows, measurements, source, target, spoiled, relative, fixed)
    np.testing.assert_allclose(shifts, truth, atol=0.02)


def test_references_are_chosen_where_there_are_none() -> None:
    bare = make_tracks(np.repeat([0, 1], [3, 2]), np.array([0, 4, 7, 1, 2]), np.zeros((5, 2)))
    chosen = with_references(bare)
    assert chosen.is_reference is not None
    assert chosen.affinity is not None
    np.testing.assert_array_equal(chosen.is_reference, [0, 1, 0, 0, 1])
    # A track that lost its reference gets another, and its affinities start there.
    A = np.array([[[2.0, 0.1], [0, 1.5]], [[1.0, -0.3], [0.2, 0.8]]])
    lost = make_tracks(np.zeros(2, int), np.array([3, 5]), np.zeros((2, 2)), np.zeros(2, bool), A)
    again = with_references(lost)
    assert again.affinity is not None
    np.testing.assert_allclose(again.affinity[0], A[0] @ np.linalg.inv(A[1]), atol=1e-6)
    np.testing.assert_allclose(again.affinity[1], np.eye(2), atol=1e-6)


def test_homographies_and_their_derivatives() -> None:
    H = np.array([[1.1, 0.05, 30.0], [-0.1, 0.9, 40.0], [1e-3, -2e-3, 1.0]])
    corners = np.array([[-10.0, -10], [10, -10], [10, 10], [-10, 10]])
    mapped = np.column_stack([corners, np.ones(4)]) @ H.T
    found = homographies(corners, (mapped[:, :2] / mapped[:, 2:])[None])
    np.testing.assert_allclose(found[0], H, atol=1e-9)

    def at(x: float, y: float) -> np.ndarray:
        p = H @ [x, y, 1]
        return np.asarray(p[:2] / p[2])

    numeric = np.stack([(at(1e-5, 0) - at(-1e-5, 0)) / 2e-5, (at(0, 1e-5) - at(0, -1e-5)) / 2e-5], axis=1)
    np.testing.assert_allclose(warp_jacobians(H[None])[0], numeric, atol=1e-6)
    assert np.isnan(homographies(corners, np.full((1, 4, 2), np.nan))).all()
