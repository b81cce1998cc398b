"""Georeference: known similarities with noise and outliers, and frames against PROJ."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from recon.core.frames import level_rotation, offset_to_origin, up_of_photos
from recon.core.similarity import Similarity3, align_similarity
from recon.evaluation.poses import rotation_angle
from recon.exports.geodesy import enu_from_geodetic, utm_epsg, utm_from_geodetic, utm_zone
from recon.exports.georeference import (
    Crs,
    Georeference,
    align_level,
    fit_positions,
    georeference_control,
    georeference_gps,
    georeference_length,
    triangulate_rays,
)
from recon.exports.gravity import (
    dominant_plane,
    up_from_exif,
    up_in_camera,
    up_of_directions,
)

UP = np.array([0.0, 0.0, 1.0])


def some_similarity(seed: int = 0, scale: float = 7.5) -> Similarity3:
    """From a model with any orientation to a frame in metres."""
    return Similarity3(scale, Rotation.random(random_state=seed).as_matrix(), np.array([12.0, -30.0, 5.0]))


def positions(n: int = 30, seed: int = 1) -> np.ndarray:
    """Camera centres in the frame: an uneven walk round something, tens of metres."""
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, n))
    return np.column_stack([40 * np.cos(angle), 30 * np.sin(angle), rng.uniform(0, 6, n)])


# Frames


PLACES = st.tuples(
    st.floats(-79.9, 83.9), st.floats(-179.9, 179.9), st.floats(-400.0, 8800.0), st.floats(-4.0, 4.0)
)


@settings(max_examples=60, deadline=None)
@given(PLACES)
def test_utm_agrees_with_proj(place: tuple[float, float, float, float]) -> None:
    """Also a few degrees outside of the zone, as a scene on its border needs."""
    pyproj = pytest.importorskip("pyproj")
    lat, lon, height, aside = place
    zone = utm_zone(lon)
    epsg = utm_epsg(lat, lon)
    to_utm = pyproj.Transformer.from_crs(4326, epsg, always_xy=True)
    lon_aside = lon + aside
    expected = to_utm.transform(lon_aside, lat)
    got = utm_from_geodetic(np.array([[lat, lon_aside, height]]), zone, lat < 0)[0]
    np.testing.assert_allclose(got[:2], expected, atol=1e-4)
    assert got[2] == height


@settings(max_examples=40, deadline=None)
@given(PLACES, st.floats(-0.02, 0.02), st.floats(-0.02, 0.02), st.floats(-100, 100))
def test_enu_agrees_with_proj(
    place: tuple[float, float, float, float], dlat: float, dlon: float, dh: float
) -> None:
    pyproj = pytest.importorskip("pyproj")
    lat, lon, height, _ = place
    there = (lat + dlat, lon + dlon, height + dh)
    pipeline = pyproj.Transformer.from_pipeline(
        "+proj=pipeline +step +proj=unitconvert +xy_in=deg +xy_out=rad +step +proj=cart +ellps=WGS84 "
        f"+step +proj=topocentric +ellps=WGS84 +lon_0={lon!r} +lat_0={lat!r} +h_0={height!r}"
    )
    expected = pipeline.transform(there[1], there[0], there[2])
    got = enu_from_geodetic(np.array([there]), np.array([lat, lon, height]))[0]
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_zones() -> None:
    assert (utm_zone(-180.0), utm_zone(-0.1), utm_zone(0.1), utm_zone(11.57), utm_zone(179.9)) == (
        1,
        30,
        31,
        32,
        60,
    )
    assert utm_epsg(48.1, 11.6) == 32632
    assert utm_epsg(-33.9, 151.2) == 32756


# Fits


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-3, 1e3))
def test_exact_positions_give_the_exact_similarity(seed: int, scale: float) -> None:
    truth = some_similarity(seed, scale)
    target = positions(12, seed)
    fit = fit_positions(truth.inverse()(target), target, sigma=1.0)
    assert fit.similarity.scale == pytest.approx(scale, rel=1e-9)
    np.testing.assert_allclose(fit.similarity.rotation, truth.rotation, atol=1e-8)
    assert fit.used.all()
    assert not fit.gravity_used


def test_noise_and_outliers() -> None:
    """A third of the positions is off by tens of metres: as good as if they had not been there."""
    truth, target = some_similarity(3), positions(30)
    rng = np.random.default_rng(0)
    noisy = target + rng.normal(0, [1.0, 1.0, 2.0], target.shape)
    noisy[::3] += rng.uniform(30, 80, (10, 3)) * rng.choice([-1, 1], (10, 3))
    fit = fit_positions(truth.inverse()(target), noisy, sigma=1.0, vertical_factor=2.0)
    assert fit.similarity.scale == pytest.approx(truth.scale, rel=0.02)
    # Heights err by 2 m over 20 positions 28 m from the middle: 1.3 degrees of tilt about each axis.
    assert math.degrees(rotation_angle(fit.similarity.rotation @ truth.rotation.T)) < 4.0
    good = np.arange(30) % 3 > 0
    oracle = align_similarity(truth.inverse()(target)[good], noisy[good])
    assert math.degrees(rotation_angle(fit.similarity.rotation @ oracle.rotation.T)) < 0.5
    assert not fit.used[::3].any()
    assert fit.used.sum() >= 18


def test_a_straight_walk_needs_gravity_and_uses_it() -> None:
    """GPS on a line leaves the turn about it open; up from the photos closes it."""
    truth = some_similarity(5)
    target = np.column_stack([np.linspace(0, 60, 15), np.linspace(0, 20, 15), np.full(15, 2.0)])
    source = truth.inverse()(target)
    up = truth.rotation.T @ UP
    noisy = target + np.random.default_rng(2).normal(0, [0.5, 0.5, 1.0], target.shape)
    fit = fit_positions(source, noisy, sigma=0.5, vertical_factor=2.0, up=up)
    assert fit.gravity_used
    assert math.degrees(rotation_angle(fit.similarity.rotation @ truth.rotation.T)) < 1.5
    assert fit.similarity.scale == pytest.approx(truth.scale, rel=0.02)
    with pytest.raises(ValueError, match="one line"):
        fit_positions(source, target, sigma=0.5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_align_level_is_exact_and_level(seed: int) -> None:
    truth = some_similarity(seed, 3.0)
    target = positions(5, seed)
    up = truth.rotation.T @ UP
    found = align_level(truth.inverse()(target), target, up)
    np.testing.assert_allclose(found.matrix, truth.matrix, atol=1e-7)
    rng = np.random.default_rng(seed)
    noisy = align_level(truth.inverse()(target), target + rng.normal(size=target.shape), up)
    np.testing.assert_allclose(noisy.rotation @ up, UP, atol=1e-9)


def test_align_level_is_the_least_squares_answer() -> None:
    """No other heading, scale or shift does better (numerical optimum of the same cost)."""
    from scipy.optimize import minimize

    rng = np.random.default_rng(4)
    source, target = rng.normal(size=(9, 3)), rng.normal(size=(9, 3))
    target = target + 2 * source + np.array([5.0, 0.0, 0.0])
    found = align_level(source, target, UP)

    def cost(v: np.ndarray) -> float:
        c, s = np.cos(v[0]), np.sin(v[0])
        R = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        return float(((target - v[1] * source @ R.T - v[2:]) ** 2).sum())

    best = minimize(cost, np.array([0.1, 1.5, 5, 0, 0]), tol=1e-12)
    assert float(((target - found(source)) ** 2).sum()) == pytest.approx(best.fun, rel=1e-6)


def test_too_little_to_fit() -> None:
    with pytest.raises(ValueError, match="3 are needed"):
        fit_positions(np.eye(3)[:2], np.eye(3)[:2], sigma=1.0)
    with pytest.raises(ValueError, match="one place"):
        align_level(np.zeros((3, 3)), np.eye(3), UP)


def geodetic_walk(n: int = 25) -> tuple[np.ndarray, np.ndarray]:
    """Latitude, longitude, height of a walk in Munich, and its metres in UTM by PROJ."""
    pyproj = pytest.importorskip("pyproj")
    utm = positions(n) + np.array([691_500.0, 5_334_700.0, 519.0])
    lon, lat = pyproj.Transformer.from_crs(32632, 4326, always_xy=True).transform(utm[:, 0], utm[:, 1])
    return np.column_stack([lat, lon, utm[:, 2]]), utm


@pytest.mark.parametrize("frame", ["utm", "enu"])
def test_gps_gives_utm_or_enu(frame: str) -> None:
    geodetic, utm = geodetic_walk()
    truth = Similarity3(0.02, Rotation.random(random_state=8).as_matrix(), np.zeros(3))
    centers = truth(utm - utm.mean(axis=0))
    names = [f"{i}.jpg" for i in range(len(utm))]
    found = georeference_gps(names, centers, geodetic, frame=frame, sigma=1.0)
    assert found.method == "gps"
    assert found.gravity == "gps"
    if frame == "utm":
        assert found.crs.epsg == 32632
        np.testing.assert_allclose(found.to_crs(centers), utm, atol=1e-3)
        assert abs(found.similarity.translation).max() < 1000  # large numbers are in the offset alone
        assert all(value == round(value) for value in found.offset)
    else:
        assert found.crs.origin is not None
        assert found.similarity.scale == pytest.approx(50.0, rel=1e-3)  # UTM itself is short by 0.4 per mille
    assert found.rms < 0.05
    again = Georeference.from_json(json.loads(json.dumps(found.to_json())))
    np.testing.assert_array_equal(again.to_crs(centers), found.to_crs(centers))
    assert again.crs == found.crs
    assert again.residuals == found.residuals


def test_gps_that_agrees_with_nothing() -> None:
    rng = np.random.default_rng(0)
    geodetic, _ = geodetic_walk(12)
    geodetic[:, :2] += rng.uniform(-0.05, 0.05, (12, 2))
    with pytest.raises(ValueError, match="agree with each other"):
        georeference_gps([str(i) for i in range(12)], rng.normal(size=(12, 3)), geodetic, sigma=3.0)


def test_scale_error_is_the_spread_of_the_scale() -> None:
    """Over many draws of noise the scale spreads as one draw predicts."""
    truth, target = some_similarity(3), positions(12)
    rng = np.random.default_rng(0)
    scales, predicted = [], []
    for _ in range(60):
        noisy = target + rng.normal(0, 0.5, target.shape)
        found = georeference_control(
            [str(i) for i in range(12)], truth.inverse()(target), noisy, Crs("local", "site"), sigma=2.0
        )
        scales.append(found.similarity.scale / truth.scale)
        predicted.append(found.scale_error)
    assert np.std(scales) == pytest.approx(float(np.mean(predicted)), rel=0.35)


def test_control_points_with_a_blunder() -> None:
    truth = some_similarity(11, 0.3)
    local = positions(7)
    world = local + np.array([2_600_000.0, 1_200_000.0, 400.0])
    points = truth.inverse()(local)
    world[4, 0] += 25.0  # a typing error
    found = georeference_control([f"P{i}" for i in range(7)], points, world, Crs("epsg", "EPSG:2056", 2056))
    used = {name: kept for name, _, kept in found.residuals}
    assert not used["P4"]
    assert sum(used.values()) == 6
    right = np.arange(7) != 4
    np.testing.assert_allclose(found.to_crs(points)[right], world[right], atol=1e-6)
    errors = {name: error for name, error, _ in found.residuals}
    np.testing.assert_allclose(errors["P4"], [25.0, 0.0, 0.0], atol=1e-6)
    assert found.rms < 1e-6


def test_two_control_points_and_gravity_suffice() -> None:
    truth = some_similarity(2, 4.0)
    world = np.array([[0.0, 0.0, 0.0], [10.0, 5.0, 1.0]])
    found = georeference_control(
        ["a", "b"],
        truth.inverse()(world),
        world,
        Crs("local", "site"),
        up=truth.rotation.T @ UP,
        gravity="photos",
    )
    assert found.gravity == "photos"
    np.testing.assert_allclose(found.similarity.rotation, truth.rotation, atol=1e-9)


def test_one_length() -> None:
    up = np.array([0.0, -1.0, 0.2]) / np.linalg.norm([0.0, -1.0, 0.2])
    found = georeference_length(
        0.8, 2.0, up, np.array([1.0, 2.0, 3.0]), gravity="photos", north=np.array([0.0, 0.0, 1.0])
    )
    ends = found.to_crs(np.array([[0.0, 0.0, 0.0], [0.8, 0.0, 0.0], [1.0, 2.0, 3.0], up]))
    assert np.linalg.norm(ends[1] - ends[0]) == pytest.approx(2.0)
    np.testing.assert_allclose(ends[2], 0.0, atol=1e-12)
    np.testing.assert_allclose(ends[3] - ends[0], [0, 0, 2.5], atol=1e-12)
    with pytest.raises(ValueError, match="length"):
        georeference_length(0.0, 2.0, up, np.zeros(3))


# Up


def test_up_of_photos_pitched_at_will() -> None:
    rng = np.random.default_rng(0)
    world = Rotation.random(random_state=4).as_matrix()
    rotations = []
    for _ in range(20):
        heading, pitch, roll = rng.uniform(-np.pi, np.pi), rng.uniform(-0.9, 0.5), rng.normal(0, 0.02)
        forward = np.array([np.cos(pitch) * np.sin(heading), np.cos(pitch) * np.cos(heading), np.sin(pitch)])
        right = np.cross(forward, UP)
        right /= np.linalg.norm(right)
        R = Rotation.from_rotvec([0, 0, roll]).as_matrix() @ np.stack(
            [right, np.cross(forward, right), forward]
        )
        rotations.append(R @ world.T)
    up = up_of_photos(np.array(rotations))
    assert math.degrees(math.acos(up @ (world @ UP))) < 1.0
    with pytest.raises(ValueError, match="differently"):
        up_of_photos(np.array([np.eye(3), np.diag([-1.0, -1.0, 1.0])]))


def test_up_of_photos_that_all_look_one_way_is_their_own_up() -> None:
    np.testing.assert_allclose(up_of_photos(np.array([np.eye(3)] * 3)), [0, -1, 0], atol=1e-12)


def test_dominant_plane_is_the_ground_not_the_wall() -> None:
    rng = np.random.default_rng(1)
    tilt = Rotation.from_euler("x", 8, degrees=True).as_matrix()
    ground = np.column_stack([rng.uniform(-5, 5, (3000, 2)), rng.normal(0, 0.01, 3000)])
    wall = np.column_stack([rng.uniform(-5, 5, 6000), np.full(6000, 5.0), rng.uniform(0, 6, 6000)])
    junk = rng.uniform(-5, 5, (500, 3))
    cloud = np.concatenate([ground, wall, junk]) @ tilt.T
    normal, inside = dominant_plane(cloud, UP)
    assert math.degrees(math.acos(normal @ (tilt @ UP))) < 0.2
    assert inside[:3000].mean() > 0.95
    assert inside[3000:9000].mean() < 0.05
    with pytest.raises(ValueError, match="level plane"):
        dominant_plane(wall + rng.normal(0, 1e-3, wall.shape), UP)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000))
def test_level_rotation_is_a_rotation_with_z_up(seed: int) -> None:
    rng = np.random.default_rng(seed)
    up, north = rng.normal(size=(2, 3))
    R = level_rotation(up, north)
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(R) == pytest.approx(1)
    np.testing.assert_allclose(R @ up, [0, 0, np.linalg.norm(up)], atol=1e-12)
    assert np.linalg.det(level_rotation(up, up)) == pytest.approx(1)


def test_gimbal_and_elevation_in_metadata() -> None:
    """-90 degrees looks straight down: up is then against the view, which is -z of the camera."""
    down = up_from_exif({}, b'<x drone-dji:GimbalPitchDegree="-90.00" drone-dji:GimbalRollDegree="+0.00"/>')
    np.testing.assert_allclose(down, [0, 0, -1], atol=1e-12)
    element = up_from_exif({}, b"<drone-dji:GimbalPitchDegree>-30.0</drone-dji:GimbalPitchDegree>")
    np.testing.assert_allclose(element, [0, -math.cos(math.radians(30)), -0.5], atol=1e-12)
    raised = up_from_exif({0x9405: 30.0})
    np.testing.assert_allclose(raised, [0, -math.cos(math.radians(30)), 0.5], atol=1e-12)
    assert up_from_exif({}) is None
    assert up_from_exif({0x9405: 700.0}) is None
    # A camera rolled clockwise sees the world, and its up, turned counter-clockwise.
    np.testing.assert_allclose(up_in_camera(0.0, math.radians(90)), [-1, 0, 0], atol=1e-12)


def test_up_of_directions_ignores_outliers() -> None:
    rotations = Rotation.random(9, random_state=0).as_matrix()
    world = np.array([0.6, 0.0, 0.8])
    ups = np.einsum("nij,j->ni", rotations, world)
    ups[2] = -ups[2]
    np.testing.assert_allclose(up_of_directions(rotations, ups), world, atol=1e-12)
    with pytest.raises(ValueError, match="contradict"):
        up_of_directions(np.array([np.eye(3)] * 3), np.eye(3))


# Points from rays


def test_offsets_only_where_single_precision_fails() -> None:
    near = positions(20) + np.array([300.0, -200.0, 0.0])
    assert not offset_to_origin(near).any()
    far = positions(20) + np.array([691_512.25, 5_334_701.5, 519.0])
    offset = offset_to_origin(far)
    assert np.abs(far - offset).max() < 100
    assert all(value % 10 == 0 for value in offset)
    small = 1e-3 * positions(20) + 50.0
    assert np.abs(small - offset_to_origin(small)).max() < 0.2


def test_triangulated_points() -> None:
    point = np.array([0.3, -0.2, 5.0])
    centers = np.array([[0.0, 0, 0], [1.0, 0, 0], [0.5, 1.0, 0.2]])
    np.testing.assert_allclose(triangulate_rays(centers, 7 * (point - centers)), point, atol=1e-12)
    noisy = (point - centers) / 5 + np.random.default_rng(0).normal(0, 1e-3, (3, 3))
    assert np.linalg.norm(triangulate_rays(centers, noisy) - point) < 0.05
    with pytest.raises(ValueError, match="parallel"):
        triangulate_rays(centers[:2], np.array([[0.0, 0, 1], [0.0, 0, 1]]))
    with pytest.raises(ValueError, match="behind"):
        triangulate_rays(centers, centers - point)
    with pytest.raises(ValueError, match="two photos"):
        triangulate_rays(centers[:1], point[None])


def test_up_that_the_positions_contradict_is_dropped() -> None:
    """A drone looks straight down in parallel strips: "up from photos" is then a direction along the ground."""
    rng = np.random.default_rng(5)
    x, y = np.meshgrid(np.arange(4) * 14.0, np.arange(2) * 24.0)
    true = np.stack([x.ravel(), y.ravel(), 60 + rng.normal(0, 2.0, 8)], axis=1)
    model = (true - true.mean(axis=0)) / 6.19
    positions = true + rng.normal(0, 1.0, (8, 3))
    wrong = fit_positions(model, positions, sigma=1.5, up=np.array([0.0, 1.0, 0.0]))
    assert not wrong.gravity_used
    assert wrong.used.sum() == 8
    assert wrong.similarity.scale == pytest.approx(6.19, rel=0.05)
    right = fit_positions(model, positions, sigma=1.5, up=np.array([0.0, 0.0, 1.0]))
    assert right.similarity.scale == pytest.approx(6.19, rel=0.05)
