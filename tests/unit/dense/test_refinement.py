"""Photo-consistency: the kernels against NumPy twins, refinement against exact planes and spheres."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from recon.dense import refinement
from recon.dense.refinement import normals_from_planes, planes_from_depth, projection_of, refine_depth
from recon.dense.types import DepthMap
from tests.support.dense_scenes import (
    HEIGHT,
    PLANE_NORMAL,
    SPHERE_CENTRE,
    WIDTH,
    exact_map,
    make_views,
    plane_depth,
    sphere_depth,
    texture,
    world_points,
)


def plane_scene(count=4):
    views = make_views(count)
    depths = [plane_depth(v) for v in views]
    return views, depths, [texture(world_points(v, d)) for v, d in zip(views, depths, strict=True)]


def noisy(depth, sigma=0.01, hole=True):
    rng = np.random.default_rng(0)
    start = (depth * (1 + rng.normal(0, sigma, depth.shape))).astype(np.float32)
    if hole:
        start[40:75, 50:100] = 0
    return DepthMap(start, np.zeros((*start.shape, 3), np.float32), (start > 0).astype(np.float32))


def test_projection_agrees_with_cameras():
    a, b = make_views(2)
    M, v = projection_of(b, a)
    X = np.array([0.3, -0.2, 4.0])
    pa = a.K @ (a.cam_from_world[:, :3] @ X + a.cam_from_world[:, 3])
    pb = b.K @ (b.cam_from_world[:, :3] @ X + b.cam_from_world[:, 3])
    q = M @ (pa / pa[2]) + v / pa[2]
    assert np.allclose(q[:2] / q[2], pb[:2] / pb[2], atol=1e-9)
    assert np.isclose(q[2] * pa[2], pb[2])


def test_planes_and_normals_are_exact_on_a_plane():
    view = make_views(1)[0]
    truth = exact_map(view, plane_depth(view), PLANE_NORMAL)
    w, gx, gy = planes_from_depth(view, truth.depth, truth.normal)
    assert np.allclose(gx[:, :-1], np.diff(w, axis=1), atol=2e-6)
    assert np.allclose(gy[:-1], np.diff(w, axis=0), atol=2e-6)
    assert np.allclose(normals_from_planes(view, w, gx, gy), truth.normal, atol=1e-4)
    # Slopes fitted to the depth alone say the same.
    fitted = normals_from_planes(view, *planes_from_depth(view, truth.depth))
    assert np.degrees(np.arccos(np.clip((fitted * truth.normal).sum(-1), -1, 1))).max() < 0.5


def ncc_twin(grey, source, H, x, y, radius, step):
    """1 - bilateral NCC with the exact homography, bilinear by hand, in double precision."""
    ref, values, weights = [], [], []
    for oy in range(-radius, radius + 1, step):
        for ox in range(-radius, radius + 1, step):
            xx, yy = x + ox, y + oy
            if not (0 <= xx < grey.shape[1] and 0 <= yy < grey.shape[0]):
                continue
            p = H @ [xx, yy, 1.0]
            u, t = p[:2] / p[2]
            iu, it = int(np.floor(u)), int(np.floor(t))
            fu, ft = u - iu, t - it
            box = source[it : it + 2, iu : iu + 2].astype(float)
            values.append(np.array([1 - ft, ft]) @ box @ np.array([1 - fu, fu]))
            ref.append(float(grey[yy, xx]))
            near = (ox * ox + oy * oy) / (2 * refinement._SIGMA_SPACE**2)
            weights.append(np.exp(-abs(ref[-1] - float(grey[y, x])) / refinement._SIGMA_GREY - near))
    w = np.array(weights) / np.sum(weights)
    a, b = np.array(ref), np.array(values)
    a, b = a - w @ a, b - w @ b
    return float(np.clip(1 - (w * a) @ b / np.sqrt(((w * a) @ a) * ((w * b) @ b)), 0, 1))


@pytest.mark.parametrize("depth_factor", [1.0, 0.97, 1.05])
def test_cost_agrees_with_numpy_twin(depth_factor):
    views, depths, greys = plane_scene(2)
    truth = exact_map(views[0], depths[0], PLANE_NORMAL)
    w, gx, gy = (a / depth_factor for a in planes_from_depth(views[0], truth.depth, truth.normal))
    sources = refinement._pack(views[0], [(views[1], greys[1])], None)
    M, v = projection_of(views[1], views[0])
    errors = []
    for x, y in [(70, 30), (80, 60), (100, 90), (130, 25), (120, 50)]:  # all land inside
        samples = np.empty((4, 36), np.float32)
        count, mean, var = refinement._patch(greys[0], x, y, 5, 2, samples)
        got = refinement._view_cost(
            sources.flat, sources.layout, sources.P, 0, x, y,
            np.float32(w[y, x]), np.float32(gx[y, x]), np.float32(gy[y, x]), samples, count, mean, var,
        )  # fmt: skip
        # The homography of the plane: q -> M q + v (gx qx + gy qy + c).
        line = np.array([gx[y, x], gy[y, x], w[y, x] - gx[y, x] * x - gy[y, x] * y])
        twin = ncc_twin(greys[0], greys[1], M + np.outer(v, line), x, y, 5, 2)
        errors.append(abs(got - twin))
        assert twin < 0.05 or depth_factor != 1.0
    # What is left is the affine approximation of the homography within the patch.
    assert max(errors) < 0.02


def test_round_trip_is_zero_for_agreeing_depth_and_grows_with_error():
    a, b = make_views(2)
    da, db = plane_depth(a), plane_depth(b)
    sources = refinement._pack(a, [(b, np.zeros((HEIGHT, WIDTH), np.float32))], [db.astype(np.float32)])
    args = (sources.P, sources.B, 0, sources.flat_depth, sources.layout)
    exact = refinement._round_trip(*args, 80, 60, np.float32(1 / da[60, 80]))
    off = refinement._round_trip(*args, 80, 60, np.float32(1 / (da[60, 80] * 1.05)))
    assert exact < 0.1
    assert off > 0.5


def test_hash_is_uniform_and_depends_on_every_argument():
    base = [refinement._hash01(1, x, y, 3) for x in range(40) for y in range(40)]
    assert min(base) >= 0
    assert max(base) < 1
    assert abs(np.mean(base) - 0.5) < 0.03
    assert abs(np.var(base) - 1 / 12) < 0.01
    assert (
        len(
            {
                refinement._hash01(*k)
                for k in [(1, 2, 3, 4), (2, 2, 3, 4), (1, 3, 3, 4), (1, 2, 4, 4), (1, 2, 3, 5)]
            }
        )
        == 5
    )


def test_arms_stay_on_the_other_colour():
    for arm, n in zip(refinement._ARM_OFFSETS, refinement._ARM_COUNTS, strict=True):
        assert ((arm[:n].sum(-1) & 1) == 1).all()


def test_plane_recovered_and_hole_filled():
    views, depths, greys = plane_scene()
    start = noisy(depths[0])
    out = refine_depth(views[0], greys[0], list(zip(views[1:], greys[1:], strict=True)), start)
    error = np.abs(out.depth / depths[0] - 1)
    assert (out.depth > 0).all()
    assert np.median(error) < 0.001  # the start was 0.01 off
    assert np.mean(error[40:75, 50:100] < 0.005) > 0.97
    angle = np.degrees(
        np.arccos(np.clip(out.normal @ (views[0].cam_from_world[:, :3] @ PLANE_NORMAL), -1, 1))
    )
    assert np.median(angle) < 5
    assert np.median(out.confidence) > 0.9


def test_sphere_depth_and_normals():
    views = make_views()
    depths = [sphere_depth(v) for v in views]
    greys = [
        np.where(d > 0, texture(world_points(v, d)), 0.5).astype(np.float32)
        for v, d in zip(views, depths, strict=True)
    ]
    inside = cv2.erode((depths[0] > 0).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    out = refine_depth(
        views[0],
        greys[0],
        list(zip(views[1:], greys[1:], strict=True)),
        noisy(depths[0], hole=False),
        mask=depths[0] > 0,
    )
    error = np.abs(out.depth / np.maximum(depths[0], 1e-9) - 1)[inside]
    assert np.median(error) < 0.0015
    assert np.percentile(error, 90) < 0.006
    normal = world_points(views[0], depths[0]) - SPHERE_CENTRE
    normal = normal / np.linalg.norm(normal, axis=-1, keepdims=True) @ views[0].cam_from_world[:, :3].T
    angle = np.degrees(np.arccos(np.clip((out.normal * normal).sum(-1), -1, 1)))[inside]
    assert np.median(angle) < 8
    assert (out.depth[depths[0] <= 0] == 0).all()


def test_same_result_for_any_threads_and_another_for_another_seed():
    views, depths, greys = plane_scene(3)
    pairs = list(zip(views[1:], greys[1:], strict=True))
    runs = [
        refine_depth(views[0], greys[0], pairs, noisy(depths[0]), threads=t, seed=s, levels=2, iterations=1)
        for t, s in [(1, 5), (3, 5), (1, 6)]
    ]
    assert np.array_equal(runs[0].depth, runs[1].depth)
    assert np.array_equal(runs[0].normal, runs[1].normal)
    assert not np.array_equal(runs[0].depth, runs[2].depth)


def test_geometric_pass_brings_views_together():
    views, depths, greys = plane_scene(3)
    pairs = list(zip(views[1:], greys[1:], strict=True))
    exact = [exact_map(v, d, PLANE_NORMAL) for v, d in zip(views, depths, strict=True)]
    grey = (np.round(greys[0] * 255)).astype(np.uint8)  # uint8 is accepted
    plain = refine_depth(views[0], grey, pairs, noisy(depths[0], hole=False), levels=1, iterations=1)
    guided = refine_depth(
        views[0],
        grey,
        pairs,
        noisy(depths[0], hole=False),
        neighbour_depths=exact[1:],
        levels=1,
        iterations=1,
    )
    assert np.percentile(np.abs(guided.depth / depths[0] - 1), 95) < np.percentile(
        np.abs(plain.depth / depths[0] - 1), 95
    )


def test_textureless_photo_has_no_confidence():
    views, depths, _ = plane_scene(2)
    flat = np.full((HEIGHT, WIDTH), 0.5, np.float32)
    out = refine_depth(
        views[0], flat, [(views[1], flat)], noisy(depths[0], hole=False), levels=1, iterations=1
    )
    assert out.confidence.max() < 0.01


def test_nothing_known_gives_nothing_and_wrong_sizes_raise():
    views, depths, greys = plane_scene(2)
    none = np.zeros((HEIGHT, WIDTH), np.float32)
    empty = DepthMap(none, np.zeros((HEIGHT, WIDTH, 3), np.float32), none)
    out = refine_depth(views[0], greys[0], [(views[1], greys[1])], empty)
    assert not out.depth.any()
    with pytest.raises(ValueError, match="neighbour"):
        refine_depth(views[0], greys[0], [], noisy(depths[0]))
    with pytest.raises(ValueError, match="160x120"):
        refine_depth(views[0], greys[0][:-1], [(views[1], greys[1])], noisy(depths[0]))
