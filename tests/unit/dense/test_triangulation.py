"""Triangulation of flow against exact depth and against the linear method."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon.dense.triangulation import FlowToView, triangulate_flow, undistort_flow
from tests.support.dense_scenes import HEIGHT, PLANE_NORMAL, WIDTH, exact_flow, make_views, plane_depth

ALL = np.ones((HEIGHT, WIDTH), bool)
SURE = np.ones((HEIGHT, WIDTH), np.float32)


def flows(views, depth, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for v in views[1:]:
        flow = exact_flow(views[0], v, depth) + rng.normal(0, noise, (HEIGHT, WIDTH, 2)).astype(np.float32)
        made.append(FlowToView(v, flow.astype(np.float32), SURE, ALL))
    return made


def test_exact_flow_gives_exact_depth_and_normals():
    views = make_views()
    truth = plane_depth(views[0])
    out = triangulate_flow(views[0], flows(views, truth))
    assert np.allclose(out.depth, truth, rtol=1e-4)
    assert ((out.normal @ (views[0].cam_from_world[:, :3] @ PLANE_NORMAL)) > 0.999).all()
    assert (out.confidence > 0.8).all()


def test_agrees_with_linear_triangulation():
    """The homogeneous linear method (DLT) over the same rays, with the reference's ray weighted to be exact."""
    views = make_views()
    truth = plane_depth(views[0])
    given_flows = flows(views, truth, noise=0.2)
    out = triangulate_flow(views[0], given_flows, max_reprojection_px=3.0)
    for x, y in [(30, 20), (80, 60), (140, 100)]:
        rows = []
        targets = [(views[0], (x, y), 1e4)]
        targets += [(f.view, (np.array([x, y]) + f.flow[y, x]), 1.0) for f in given_flows]
        for view, (u, v), weight in targets:
            P = view.K @ view.cam_from_world
            rows += [weight * (u * P[2] - P[0]), weight * (v * P[2] - P[1])]
        X = np.linalg.svd(np.array(rows))[2][-1]
        X = X[:3] / X[3]
        z = (views[0].cam_from_world[:, :3] @ X + views[0].cam_from_world[:, 3])[2]
        assert abs(out.depth[y, x] / z - 1) < 2e-3


def test_wrong_neighbour_is_outvoted():
    views = make_views()
    truth = plane_depth(views[0])
    made = flows(views, truth)
    made[1] = FlowToView(made[1].view, made[1].flow + np.float32(9.0), SURE, ALL)
    out = triangulate_flow(views[0], made, min_views=3)
    assert np.allclose(out.depth, truth, rtol=1e-4)
    # The other three rays are too few for four views.
    assert not triangulate_flow(views[0], made, min_views=4).depth.any()


def test_off_the_epipolar_line_inconsistent_or_narrow_is_left_out():
    views = make_views(2)
    flow = exact_flow(views[0], views[1], plane_depth(views[0]))
    across = FlowToView(views[1], flow + np.array([0, 4], np.float32), SURE, ALL)
    assert not triangulate_flow(views[0], [across]).depth.any()
    assert not triangulate_flow(views[0], [FlowToView(views[1], flow, SURE, ~ALL)]).depth.any()
    fine = FlowToView(views[1], flow, SURE, ALL)
    assert triangulate_flow(views[0], [fine], min_angle_deg=3).depth.any()
    assert not triangulate_flow(views[0], [fine], min_angle_deg=12).depth.any()
    assert not triangulate_flow(views[0], []).depth.any()
    with pytest.raises(ValueError, match="min_views"):
        triangulate_flow(views[0], [fine], min_views=1)


@settings(max_examples=15, deadline=None)
@given(st.floats(0.05, 0.5))
def test_more_views_do_not_hurt(noise):
    views = make_views(6)
    truth = plane_depth(views[0])
    made = flows(views, truth, noise=noise, seed=int(noise * 1000))

    def error(count):
        depth = triangulate_flow(views[0], made[:count], max_reprojection_px=3.0).depth
        return np.median(np.abs(depth / truth - 1)[depth > 0])

    assert error(5) < error(1)


def test_undistorted_flow_of_a_known_warp():
    """Both photos are stretched by known affine maps; the flow must come back exactly where it is blended."""
    h, w = 50, 70
    xs, ys = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    # Undistorted p lies at 0.9 p + 2.3 in the reference, target pixel q at 1.1 q - 1.7 undistorted.
    to_reference = np.stack([0.9 * xs + 2.3, 0.9 * ys + 2.3], -1).astype(np.float32)
    target_map = np.stack([1.1 * xs - 1.7, 1.1 * ys - 1.7], -1).astype(np.float32)
    flow = np.stack([0.02 * xs + 1.25, -0.01 * ys + 0.5], -1).astype(np.float32)
    out, confidence, good = undistort_flow(
        flow, np.ones((h, w), np.float32), np.ones((h, w), bool), to_reference, target_map
    )
    at_x, at_y = to_reference[..., 0], to_reference[..., 1]
    end_x = 1.1 * (at_x + 0.02 * at_x + 1.25) - 1.7
    end_y = 1.1 * (at_y - 0.01 * at_y + 0.5) - 1.7
    assert good.mean() > 0.8
    assert np.allclose(out[good], np.stack([end_x - xs, end_y - ys], -1)[good], atol=0.01)
    assert (confidence[good] == 1).all()
    assert not good[to_reference[..., 0] > w - 1].any()


def test_undistorting_never_averages_over_a_step():
    h, w = 20, 30
    xs, ys = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    grid = np.stack([xs, ys], -1)
    flow = np.zeros((h, w, 2), np.float32)
    flow[:, 15:, 0] = 6
    out, _, good = undistort_flow(
        flow, np.ones((h, w), np.float32), np.ones((h, w), bool), grid + np.float32(0.4), grid
    )
    # The shift of 0.4 is part of the flow; each end is that of one surface or the other.
    steps = out[good][:, 0] - 0.4
    assert (np.minimum(np.abs(steps), np.abs(steps - 6)) < 1e-3).all()
