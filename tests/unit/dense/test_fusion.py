"""Neighbour choice, cross-view filter and fusion on exact planes: what must be kept, dropped and conserved."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from recon.dense.filtering import (
    FilterOptions,
    background_fringe,
    consistent_views,
    filter_depths,
    filter_view,
    remove_speckles,
    smooth_regions,
)
from recon.dense.fusion import FusionRules, fuse_depth_maps
from recon.dense.neighbours import select_neighbours, views_that_hold_most
from recon.dense.types import DepthMap
from tests.support.dense_scenes import (
    HEIGHT,
    PLANE_NORMAL,
    PLANE_OFFSET,
    WIDTH,
    exact_map,
    make_views,
    plane_depth,
    world_points,
)


def scene(count=4):
    views = make_views(count)
    maps = [exact_map(v, plane_depth(v), PLANE_NORMAL) for v in views]
    images = [np.full((HEIGHT, WIDTH, 3), 40 * (i + 1), np.uint8) for i in range(count)]
    return views, maps, images


def overlap(view, points):
    """Which points project into a view, away from its border."""
    pixel = (points @ view.cam_from_world[:, :3].T + view.cam_from_world[:, 3]) @ view.K.T
    u, v = pixel[..., 0] / pixel[..., 2], pixel[..., 1] / pixel[..., 2]
    return (u > 0.5) & (v > 0.5) & (u < WIDTH - 1.5) & (v < HEIGHT - 1.5)


def test_neighbours_prefer_shared_points_good_angle_and_equal_scale():
    views = make_views(4)
    points = world_points(views[0], plane_depth(views[0]))[::6, ::6].reshape(-1, 3)
    everyone = [(p, v.photo_id) for v in views for p in range(len(points))]
    # Hardly any baseline; and far behind, where everything is four times smaller.
    twin = replace(views[0], photo_id=4, cam_from_world=views[0].cam_from_world + np.eye(3, 4, 3) * 0.01)
    far_pose = views[1].cam_from_world.copy()
    far_pose[2, 3] += 15.0
    far = replace(views[1], photo_id=5, cam_from_world=far_pose)
    stranger = replace(views[2], photo_id=6)
    observed = np.array(everyone + [(p, i) for i in (4, 5) for p in range(len(points))])
    chosen = select_neighbours([*views, twin, far, stranger], points, observed[:, 0], observed[:, 1], count=6)
    assert set(chosen[0][:3]) == {1, 2, 3}
    assert set(chosen[0][3:]) == {4, 5}
    assert chosen[6] == ()
    assert all(i not in c for i, c in enumerate(chosen))


def test_exact_depth_is_confirmed_exactly_where_views_overlap():
    views, maps, _ = scene(2)
    agree, through = consistent_views(views, maps[0].depth, maps, 0, [1], (1.0, 0.01))
    inside = overlap(views[1], world_points(views[0], maps[0].depth))
    assert (agree[inside] == 1).all()
    assert not through.any()


def test_filter_keeps_truth_and_drops_floaters():
    views, maps, _ = scene(4)
    depth = maps[0].depth.copy()
    depth[30:60, 40:90] *= 0.8
    spoiled = [replace(maps[0], depth=depth), *maps[1:]]
    kept = filter_depths(views, spoiled, threads=2)
    seen = sum(overlap(v, world_points(views[0], maps[0].depth)).astype(int) for v in views[1:])
    good = seen >= 1
    good[28:62, 38:92] = False
    assert (kept[0].depth[30:60, 40:90] == 0).all()
    assert (kept[0].normal[30:60, 40:90] == 0).all()
    assert np.array_equal(kept[0].depth[good], maps[0].depth[good])
    # Three views cannot give four that agree; what they see cannot make them more than they are.
    few = filter_depths(views[:3], maps[:3], min_views=4)
    assert not any(d.depth.any() for d in few)


def test_floaters_confirmed_by_one_accomplice_fall_to_those_who_see_through():
    views, maps, _ = scene(4)
    floating = []
    for view, depth_map in zip(views, maps, strict=True):
        # The same plane 20% nearer to the first camera, seen by the first two.
        offset = PLANE_OFFSET * 0.8
        rays = world_points(view, np.ones((HEIGHT, WIDTH))) - view.center
        nearer = (offset - view.center @ PLANE_NORMAL) / (rays @ PLANE_NORMAL)
        depth = depth_map.depth.copy()
        if view.photo_id < 2:
            depth[:, 60:] = nearer[:, 60:]
        floating.append(replace(depth_map, depth=depth.astype(np.float32)))
    place = world_points(views[0], floating[0].depth)
    middle = np.logical_and.reduce([overlap(v, place) for v in views[1:]])
    middle[:10] = middle[-10:] = middle[:, :90] = middle[:, -10:] = False
    assert middle.sum() > 300
    pair = filter_depths(views[:2], floating[:2])
    everyone = filter_depths(views, floating, neighbours=[(1,), (0,), (3,), (2,)])
    # Some of the floaters' pixels lie beyond the accomplice's own.
    assert (pair[0].depth[middle] > 0).mean() > 0.8
    assert (everyone[0].depth[middle] > 0).mean() < 0.1


def test_views_are_ranked_by_the_pixels_that_they_have_for_a_view():
    views, maps, _ = scene(4)
    far_pose, away_pose = (views[1].cam_from_world.copy() for _ in range(2))
    far_pose[2, 3] += 30.0
    away_pose[:, 3] += [3.0, 0.0, 0.0]  # sees a part only
    far = replace(views[1], photo_id=4, cam_from_world=far_pose)
    away = replace(views[1], photo_id=5, cam_from_world=away_pose)
    every = [views[0], far, away, *views[1:]]
    depth = maps[0].depth.copy()
    depth[40:60] = 0
    assert views_that_hold_most(every, 0, depth, [1, 2, 3, 4, 5], 5) == [1, 2, 3, 4, 5]
    assert views_that_hold_most(every, 0, depth, [1, 2, 3, 4, 5], 4) == [2, 3, 4, 5]
    assert views_that_hold_most(every, 0, depth, [1, 2, 3, 4, 5], 3) == [3, 4, 5]


def test_a_limit_that_nobody_reaches_changes_nothing_and_one_that_is_reached_asks_the_neighbours():
    views, maps, images = scene(4)
    far_pose = views[1].cam_from_world.copy()
    far_pose[2, 3] += 30.0
    far = replace(views[1], photo_id=4, cam_from_world=far_pose)
    more = [*views, far], [*maps, exact_map(far, plane_depth(far), PLANE_NORMAL)], [*images, images[0]]
    clouds = [fuse_depth_maps(*more, rules=FusionRules(max_views=most)) for most in (64, 4, 3)]
    assert np.array_equal(clouds[0].xyz, clouds[1].xyz)
    mine = clouds[2].reference_view < 4
    assert np.array_equal(clouds[2].xyz[mine], fuse_depth_maps(views, maps, images).xyz)


def test_agreement_is_the_share_of_sure_depth_that_others_do_not_look_through():
    views, maps, _ = scene(4)
    options = FilterOptions()
    _, right = filter_view(views, maps[0], maps, 0, (1, 2, 3), options)
    assert right.share == 1.0
    depth = maps[0].depth.copy()
    depth[30:60, 40:90] *= 0.8
    _, spoiled = filter_view(views, replace(maps[0], depth=depth), maps, 0, (1, 2, 3), options)
    seen = np.logical_or.reduce([overlap(v, world_points(views[0], depth)) for v in views[1:]])
    assert spoiled.crossed == pytest.approx(seen[30:60, 40:90].sum(), rel=0.1)
    assert spoiled.confirmed == pytest.approx(right.confirmed - seen[30:60, 40:90].sum(), rel=0.1)
    unsure = replace(maps[0], confidence=maps[0].confidence * np.float32(0.05))
    assert math.isnan(filter_view(views, unsure, maps, 0, (1, 2, 3), options)[1].share)


def test_low_confidence_neither_stays_nor_confirms():
    views, maps, _ = scene(2)
    doubtful = replace(maps[1], confidence=maps[1].confidence * np.float32(0.05))
    kept = filter_depths(views, [maps[0], doubtful])
    assert not kept[0].depth.any()
    assert not kept[1].depth.any()


@pytest.mark.parametrize(
    ("confidence", "scale", "stays"), [(0.2, 1.0, True), (0.2, 1.006, False), (0.05, 1.0, False)]
)
def test_low_confidence_stays_where_sure_views_agree_closely(confidence, scale, stays):
    """At 1.006 of the depth views still agree within the tolerance, but not closely."""
    views, maps, _ = scene(4)
    doubtful = replace(
        maps[0],
        depth=maps[0].depth * np.float32(scale),
        confidence=np.full_like(maps[0].confidence, confidence),
    )
    before = filter_depths(views, maps)[0].depth > 0
    kept = filter_depths(views, [doubtful, *maps[1:]])[0].depth > 0
    assert before.mean() > 0.5
    assert (kept[before].mean() > 0.8) if stays else not kept.any()


def test_smooth_regions_need_more_views_than_textured_ones():
    views, maps, _ = scene(4)
    half = np.zeros((HEIGHT, WIDTH), bool)
    half[:, 80:] = True
    kept = filter_depths(views, maps, smooth=[half] * 4, smooth_min_views=4)
    confirming, _ = consistent_views(views, maps[0].depth, maps, 0, (1, 2, 3), (1.0, 0.01))
    expected = (confirming >= np.where(half, 3, 1)) & (maps[0].depth > 0)
    assert 0 < expected[:, 80:].mean() < (confirming >= 1)[:, 80:].mean()
    # Speckles at the rim go as well, nothing else differs.
    assert not (kept[0].depth > 0)[~expected].any()
    assert (kept[0].depth > 0)[expected].mean() > 0.99
    # Two photos cannot be asked for four.
    pair = filter_depths(views[:2], maps[:2], smooth=[half] * 2, smooth_min_views=4)
    assert (pair[0].depth[:, 80:] > 0).any()


def test_smooth_regions_are_those_without_contrast():
    rng = np.random.default_rng(0)
    grey = np.full((60, 80), 128.0)
    grey[:, :40] += rng.normal(0, 0.4, (60, 40))
    grey[:, 40:] += rng.normal(0, 4.0, (60, 40))
    found = smooth_regions(np.rint(grey).astype(np.uint8))
    assert found[:, :30].mean() > 0.95
    assert not found[:, 50:].any()


def disc_before(background: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A textured disc before a background, what belongs to it, and a depth map that reaches 4 px beyond it."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:120, :160]
    radius = np.hypot(y - 60, x - 80)
    colours = background + rng.normal(0, 1.0, background.shape)
    colours[radius < 40] = rng.uniform(40, 150, (int((radius < 40).sum()), 3))
    rgb = np.clip(np.rint(colours), 0, 255).astype(np.uint8)
    return rgb, radius < 40, np.where(radius < 44, 5.0, 0.0).astype(np.float32)


def test_a_rim_of_even_background_is_no_part_of_the_object():
    rgb, disc, depth = disc_before(np.full((120, 160, 3), (170.0, 190.0, 220.0)))
    fringe = background_fringe(rgb, depth)
    assert fringe[(depth > 0) & ~disc].mean() > 0.97
    assert not fringe[disc].any()
    assert not fringe[depth == 0].any()


def test_beside_an_uneven_background_or_without_one_nothing_is_trimmed():
    rng = np.random.default_rng(4)
    rgb, _, depth = disc_before(rng.uniform(0, 255, (120, 160, 3)))
    assert not background_fringe(rgb, depth).any()
    assert not background_fringe(rgb, np.ones_like(depth)).any()
    assert not background_fringe(rgb, np.zeros_like(depth)).any()


def test_a_hole_in_an_even_surface_keeps_its_rim_where_it_is_small():
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 1.0, (120, 160, 3))
    rgb = np.rint(noise + np.array([120, 60, 60])).astype(np.uint8)
    depth = np.full((120, 160), 5.0, np.float32)
    depth[30:80, 40:90] = 0
    assert not background_fringe(rgb, depth, smallest=3000).any()
    assert background_fringe(rgb, depth, smallest=2000).sum() > 500


def test_speckles_by_size_and_step():
    depth = np.zeros((30, 40), np.float32)
    depth[2:12, 2:12] = 1.0  # 100 pixels
    depth[2:12, 12:14] = 1.5  # 20 pixels beside it, another surface
    depth[20:25, 20:29] = 2.0  # 45 pixels
    keep = remove_speckles(depth, min_pixels=45)
    assert keep[2:12, 2:12].all()
    assert not keep[2:12, 12:14].any()
    assert keep[20:25, 20:29].all()
    assert keep.sum() == 145


def test_one_point_per_patch_covering_what_two_views_see():
    views, maps, images = scene(4)
    cloud = fuse_depth_maps(views, maps, images)
    assert np.abs(cloud.xyz @ PLANE_NORMAL - PLANE_OFFSET).max() < 1e-3
    assert (cloud.normals @ PLANE_NORMAL > 0.999).all()
    assert np.allclose(np.linalg.norm(cloud.normals, axis=1), 1, atol=1e-5)
    # As dense as one photo: about as many points as pixels of the first view where two see the plane.
    tree = cKDTree(cloud.xyz)
    pixel = float(np.median(maps[0].depth)) / views[0].K[0, 0]
    for view, depth_map in zip(views, maps, strict=True):
        points = world_points(view, depth_map.depth)
        others = [v for v in views if v is not view]
        twice = np.logical_or.reduce([overlap(v, points) for v in others])
        away, _ = tree.query(points[twice])
        assert np.percentile(away, 99) < 1.6 * pixel
    points = world_points(views[0], maps[0].depth)
    all_see = np.logical_and.reduce([overlap(v, points) for v in views])
    low, high = points[all_see].min(0), points[all_see].max(0)
    core = [np.array([low[0] + 0.3, low[1] + 0.3]), np.array([high[0] - 0.3, high[1] - 0.3])]
    made = ((cloud.xyz[:, :2] > core[0]) & (cloud.xyz[:, :2] < core[1])).all(1).sum()
    once = ((points[..., :2] > core[0]) & (points[..., :2] < core[1])).all(-1).sum()
    assert 0.8 < made / once < 1.5


def test_counts_colours_and_order():
    views, maps, images = scene(3)
    cloud = fuse_depth_maps(views, maps, images, threads=3)
    alone = fuse_depth_maps(views, maps, images, threads=1)
    assert np.array_equal(cloud.xyz, alone.xyz)
    assert np.array_equal(cloud.rgb, alone.rgb)
    assert (np.diff(cloud.reference_view) >= 0).all()
    assert cloud.view_count.min() == 2
    assert cloud.view_count.max() == 3
    # Equal confidences: the colour of a point that all three see is the mean of theirs.
    assert (np.abs(cloud.rgb[cloud.view_count == 3].astype(int) - 80) <= 1).all()
    strict = fuse_depth_maps(views, maps, images, rules=FusionRules(min_views=3))
    assert len(strict) == (cloud.view_count == 3).sum()


def test_a_single_view_gives_its_pixels_once_and_masks_count():
    views, maps, images = scene(1)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[:10] = True
    assert len(fuse_depth_maps(views, maps, images, rules=FusionRules(min_views=1))) == HEIGHT * WIDTH
    assert len(fuse_depth_maps(views, maps, images, [mask], rules=FusionRules(min_views=1))) == 10 * WIDTH
    assert len(fuse_depth_maps(views, maps, images)) == 0


def test_disagreeing_normals_and_depths_do_not_fuse():
    views, maps, images = scene(2)
    turned = np.broadcast_to(views[1].cam_from_world[:, :3] @ [0.9, 0, -0.44], maps[1].normal.shape)
    assert (
        len(fuse_depth_maps(views, [maps[0], replace(maps[1], normal=turned.astype(np.float32))], images))
        == 0
    )
    away = DepthMap(maps[1].depth * np.float32(1.1), maps[1].normal, maps[1].confidence)
    assert len(fuse_depth_maps(views, [maps[0], away], images)) == 0
    with pytest.raises(ValueError, match="as many"):
        fuse_depth_maps(views, maps[:1], images)
