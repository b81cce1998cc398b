"""Ways of a virtual camera: where they lead, what they keep clear of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from recon.core.cameras import PinholeView
from recon.render.pose_splines import interpolate_poses, motion_times, parse_tum, walking_order
from recon.render.trajectories import (
    even_shares,
    find_ring,
    find_subject,
    fitted,
    look_at,
    orbit,
    photos_calibration,
    through_photos,
)

UP = np.array([0.0, 0.0, 1.0])
K = np.array([[500.0, 0, 319.5], [0, 500.0, 239.5], [0, 0, 1]])
RNG = np.random.default_rng(0)


def camera(eye: np.ndarray, target: np.ndarray, up: np.ndarray = UP) -> PinholeView:
    return look_at(np.asarray(eye, float), np.asarray(target, float), up, K, 640, 480)


def facade() -> tuple[np.ndarray, list[PinholeView]]:
    """A wall in the plane y = 0 and photos along an arc before it, at y < 0."""
    wall = RNG.uniform([-6, 0, 0], [6, 0.3, 5], (4000, 3))
    angles = np.radians([-35, -20, -5, 10, 25, 35])
    eyes = [np.array([9 * np.sin(a), -9 * np.cos(a), 1.7 + 0.1 * i]) for i, a in enumerate(angles)]
    return wall, [camera(eye, [0, 0, 2.5]) for eye in eyes]


def statue(count: int = 12) -> tuple[np.ndarray, list[PinholeView]]:
    body = RNG.normal(size=(4000, 3)) * [0.4, 0.4, 0.8] + [3.0, -2.0, 1.0]
    angles = 2 * np.pi * np.arange(count) / count
    eyes = [np.array([3 + 4 * np.cos(a), -2 + 4 * np.sin(a), 2.0]) for a in angles]
    return body, [camera(eye, [3, -2, 1]) for eye in eyes]


def turned(
    xyz: np.ndarray, views: list[PinholeView], seed: int
) -> tuple[np.ndarray, list[PinholeView], np.ndarray]:
    """The same in a world that lies any way, far away and of another scale."""
    rng = np.random.default_rng(seed)
    R = Rotation.random(random_state=seed).as_matrix()
    scale, shift = float(np.exp(rng.uniform(-3, 3))), rng.uniform(-50, 50, 3)
    moved = []
    for view in views:
        rotation = view.cam_from_world[:, :3] @ R.T
        center = scale * R @ view.center + shift
        pose = np.column_stack([rotation, -rotation @ center])
        moved.append(PinholeView(-1, "", view.K, pose, view.width, view.height))
    return scale * xyz @ R.T + shift, moved, R @ UP


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_a_facade_gets_a_swing_before_it(seed: int | None) -> None:
    wall, views = facade()
    up = UP
    to_wall = lambda p: p  # noqa: E731
    if seed is not None:
        flat, photos = wall, views
        wall, views, up = turned(flat, photos, seed)
        scale = np.linalg.norm(views[1].center - views[0].center) / np.linalg.norm(
            photos[1].center - photos[0].center
        )
        R = views[0].cam_from_world[:, :3].T @ photos[0].cam_from_world[:, :3]
        to_wall = lambda p: R.T @ (p - views[0].center) / scale + photos[0].center  # noqa: E731
    path = orbit(wall, views, up, 60, 320, 180)
    eyes = np.array([to_wall(view.center) for view in path])
    assert (eyes[:, 1] < -6).all()  # never through the wall, nor close to it
    assert eyes[:, 0].min() < -4.5
    assert eyes[:, 0].max() > 4.5
    assert np.abs(eyes[:, 2] - 2).max() < 0.5  # as high as the photos
    # In a loop: the last step is no longer than the others.
    step = np.linalg.norm(np.diff(np.vstack([eyes, eyes[:1]]), axis=0), axis=1)
    assert step[-1] <= 1.05 * step.max()
    assert step.max() < 2.2


def test_a_statue_gets_a_full_circle() -> None:
    body, views = statue()
    subject = find_subject(body, views)
    np.testing.assert_allclose(subject.middle, [3, -2, 1], atol=0.25)
    path = orbit(body, views, UP, 72, 320, 180)
    offset = np.array([view.center for view in path]) - [3, -2, 1]
    azimuth = np.sort(np.arctan2(offset[:, 1], offset[:, 0]))
    assert np.diff(azimuth).max() < np.radians(9)
    np.testing.assert_allclose(np.linalg.norm(offset[:, :2], axis=1), 4, atol=0.4)
    np.testing.assert_allclose(offset[:, 2], 1.0, atol=0.1)
    for view in path:  # level, and looking at the statue
        assert view.cam_from_world[0, :3] @ UP == pytest.approx(0, abs=1e-9)
        assert view.cam_from_world[1, :3] @ UP < 0
        centre = view.K @ (view.cam_from_world @ [*subject.middle, 1])
        np.testing.assert_allclose(centre[:2] / centre[2], [159.5, 89.5], atol=1e-6)


def test_half_a_ring_is_not_closed() -> None:
    body, views = statue()
    some = views[:6]
    ring = find_ring(find_subject(body, some), some, UP)
    assert not ring.closed
    assert np.degrees(ring.stop - ring.start) == pytest.approx(150, abs=8)


def test_a_room_is_looked_round_from_its_middle() -> None:
    """Photos from the middle of a room, all looking outwards: a way round would lead through the walls."""
    walls = RNG.uniform(-1, 1, (6000, 3))
    walls /= np.abs(walls).max(axis=1, keepdims=True)
    walls *= [4, 3, 1.5]
    angles = 2 * np.pi * np.arange(10) / 10
    views = [camera([0.3 * np.cos(a), 0.3 * np.sin(a), 0], [5 * np.cos(a), 5 * np.sin(a), 0]) for a in angles]
    assert not find_subject(walls, views).looking_in
    path = orbit(walls, views, UP, 40, 320, 180)
    assert all(np.linalg.norm(view.center) < 0.4 for view in path)
    axes = np.array([view.cam_from_world[2, :3] for view in path])
    assert (np.abs(axes[:, 2]) < 0.2).all()
    assert np.diff(np.sort(np.arctan2(axes[:, 1], axes[:, 0]))).max() < np.radians(12)


def test_stretching_stops_before_a_wall_behind() -> None:
    """The photos stand two metres before a second wall: with cameras drawn, the orbit goes no farther than that."""
    wall, views = facade()
    behind = RNG.uniform([-12, -12, -2], [12, -11.5, 7], (20000, 3))
    free = orbit(wall, views, UP, 9, 320, 180, film=False, stretch=2.0)
    assert min(view.center[1] for view in free) < -16
    both = orbit(np.concatenate([wall, behind]), views, UP, 9, 320, 180, film=False, stretch=2.0)
    assert min(view.center[1] for view in both) > -11.4


def test_fitted_cameras_show_everything_and_waste_no_room() -> None:
    wall, views = facade()
    shown = np.concatenate([wall, [view.center for view in views]])
    path = fitted(orbit(wall, views, UP, 7, 320, 180, film=False, stretch=1.8, rise=0.2), shown)
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    for view in path:
        local = (shown @ view.cam_from_world[:, :3].T + view.cam_from_world[:, 3]) @ view.K.T
        xy = local[:, :2] / local[:, 2:]
        low, high = np.minimum(low, xy.min(axis=0)), np.maximum(high, xy.max(axis=0))
    free = np.array([320, 180]) - (high - low)
    assert (low > 0).all()
    assert (high < [319, 179]).all()
    assert (free / [320, 180]).min() == pytest.approx(0.08, abs=0.01)
    assert path[0].K[0, 0] == path[-1].K[0, 0]
    behind = path[0].center - 5 * path[0].cam_from_world[2, :3]
    alone = [fitted(path[:1], points)[0].K for points in (shown, np.concatenate([shown, [behind]]))]
    assert np.array_equal(*alone)


def test_stills_go_from_one_end_to_the_other() -> None:
    wall, views = facade()
    one = orbit(wall, views, UP, 1, 320, 180, film=False)[0]
    assert abs(one.center[0]) < 0.6
    five = [view.center[0] for view in orbit(wall, views, UP, 5, 320, 180, film=False)]
    steps = np.diff(five)
    assert (steps > 0).all() or (steps < 0).all()
    assert even_shares(1).tolist() == [0.5]
    assert even_shares(3).tolist() == [0, 0.5, 1]


def test_photos_way_passes_through_every_photo_and_does_not_jump() -> None:
    wall, views = facade()
    path = through_photos(wall, views, even_shares(401), 640, 480)
    eyes = np.array([view.center for view in path])
    for view in views:
        nearest = int(np.argmin(np.linalg.norm(eyes - view.center, axis=1)))
        assert np.linalg.norm(eyes[nearest] - view.center) < 0.02
        turn = Rotation.from_matrix(path[nearest].cam_from_world[:, :3] @ view.cam_from_world[:, :3].T)
        assert turn.magnitude() < np.radians(0.5)
    step = np.linalg.norm(np.diff(eyes, axis=0), axis=1)
    assert step.max() < 3 * np.median(step)
    assert eyes[:, 1].max() < -7  # centres stay between those of the photos


def test_walking_order_mends_a_shuffled_walk_and_keeps_a_good_one() -> None:
    along = np.stack([np.arange(30.0), np.sin(np.arange(30)), np.zeros(30)], axis=1)
    assert walking_order(along).tolist() == list(range(30))
    shuffle = np.random.default_rng(3).permutation(30)
    order = walking_order(along[shuffle])
    assert shuffle[order].tolist() in (list(range(30)), list(range(30))[::-1])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 9))
def test_interpolated_poses_are_poses_and_meet_their_keys(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    R = Rotation.from_rotvec(np.cumsum(rng.normal(scale=0.3, size=(count, 3)), axis=0)).as_matrix()
    poses = np.concatenate([R, rng.normal(size=(count, 3, 1))], axis=2)
    times = motion_times(poses, 1.0)
    assert (np.diff(times) > 0).all()
    np.testing.assert_allclose(interpolate_poses(poses, times, times), poses, atol=1e-6)
    between = interpolate_poses(poses, times, np.linspace(0, times[-1], 50))
    turns = between[:, :, :3]
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.eye(3)[None].repeat(50, 0), atol=1e-9)
    centers = -np.einsum("nji,nj->ni", turns, between[:, :, 3])
    keys = -np.einsum("nji,nj->ni", poses[:, :, :3], poses[:, :, 3])
    assert (centers >= keys.min(axis=0) - 1e-9).all()  # no coordinate overshoots
    assert (centers <= keys.max(axis=0) + 1e-9).all()


def test_angle_of_view_is_that_of_the_photos() -> None:
    _, views = facade()
    wide = photos_calibration(views, 1280, 960)
    assert wide[0, 0] == pytest.approx(1000)
    assert wide[0, 2] == 639.5


def test_tum_trajectories_are_camera_to_world() -> None:
    text = "# time tx ty tz qx qy qz qw\n10 1 2 3 0 0 0 1\n\n12.5 1 2 4 0 0 0.70710678 0.70710678\n"
    times, poses = parse_tum(text)
    assert times.tolist() == [0, 2.5]
    np.testing.assert_allclose(poses[0], np.column_stack([np.eye(3), [-1, -2, -3]]))
    # A quarter turn about z takes the camera's x to the world's y.
    np.testing.assert_allclose(poses[1][:, :3].T @ [1, 0, 0], [0, 1, 0], atol=1e-7)
    np.testing.assert_allclose(-poses[1][:, :3].T @ poses[1][:, 3], [1, 2, 4], atol=1e-7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no pose"),
        ("1 2 3\n", "line 1"),
        ("0 0 0 0 0 0 0 1\n1 0 0 nan 0 0 0 1\n", "line 2"),
        ("0 0 0 0 0 0 0 0\n", "line 1"),
        ("1 0 0 0 0 0 0 1\n1 0 0 0 0 0 0 1\n", "ascend"),
        ("<xml/>", "line 1"),
    ],
)
def test_trajectories_that_are_none(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_tum(text)
