"""Figures and verdicts on scenes whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recon.core.cameras import Intrinsics
from recon.graph.tracks import make_tracks
from recon.graph.types import Tracks, ViewGraph
from recon.photos.types import PhotoSet
from recon.sfm import evidence
from recon.sfm.adapter import write_database
from recon.sfm.camera_tests import OTHER_THAN_GIVEN, CameraTest
from recon.sfm.evidence import Parallax, model_arrays, parallax, turn_fit, uncertainty
from recon.sfm.mapping import (
    MappingSettings,
    halves_of,
    map_incremental,
    map_known,
    refine_model,
    with_model_first,
)
from recon.sfm.trust import Figures, depth_figures, far_pairs, figures_of, judge, trust_in_words, with_depth
from tests.support.sfm_scene import (
    KNOWN,
    RING,
    Scene,
    camera_centers,
    centre_errors,
    exact_tracks,
    graph_of,
    make_scene,
    photo_set_of,
)

ONE_THREAD = MappingSettings(threads=1)
LENS = Intrinsics("SIMPLE_RADIAL", (600.0, 319.5, 239.5, 0.0), 640, 480)


def turned(degrees: float, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    R = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    return np.column_stack([R, -R @ np.array(centre)])


def far_and_near(poses: list[np.ndarray], camera: Intrinsics = LENS, n: int = 900) -> Scene:
    """Points all round in front, between 3 and 12 away."""
    rng = np.random.default_rng(0)
    direction = rng.normal(size=(n, 3)) * [1, 0.4, 1]
    direction[:, 2] = np.abs(direction[:, 2]) + 0.3
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return Scene(direction * rng.uniform(3, 12, (n, 1)), poses, camera)


def mapped(folder: Path, photos: PhotoSet, tracks: Tracks):  # type: ignore[no-untyped-def]
    graph, geometries = graph_of(photos, tracks)
    write_database(folder / "d.db", photos, tracks, geometries)
    return map_incremental(folder / "d.db", photos, graph, ONE_THREAD), graph


def verdict_of(model, photos: PhotoSet, graph: ViewGraph, tracks: Tracks):  # type: ignore[no-untyped-def]
    return judge(figures_of(model, photos, graph, tracks, halves=halves_of(model, photos, ONE_THREAD)))


@pytest.mark.parametrize("factor", [0.7, 1.0, 1.25])
def test_turns_explain_a_panorama_whatever_the_focal_length_and_no_flight(factor: float) -> None:
    guess = replace(LENS, params=(600.0 * factor, *LENS.params[1:]))
    tripod = far_and_near([turned(12.6 * (i - 3.5)) for i in range(8)])
    fit = turn_fit(exact_tracks(tripod, noise=0.3), photo_set_of(tripod, guess))
    assert fit.share > 0.97
    assert fit.rms_px == pytest.approx(0.3, rel=0.25)  # the noise, and nothing else
    moving = far_and_near([turned(12.6 * (i - 3.5), (0.25 * i, 0, 0)) for i in range(8)])
    assert turn_fit(exact_tracks(moving, noise=0.3), photo_set_of(moving, guess)).share < 0.2


def test_turns_of_a_camera_that_zoomed_are_turns_if_each_photo_may_have_a_lens_of_its_own() -> None:
    """More freedom explains a little more of a camera that moved; from 0.6 a run is doubtful."""
    poses = [turned(12.6 * (i - 3.5)) for i in range(8)]
    wide = exact_tracks(far_and_near(poses), noise=0.2)
    zoomed = np.isin(wide.photo_id, (1, 3, 6))[:, None]
    middle = np.array([319.5, 239.5])
    xy = np.where(zoomed, (wide.xy - middle) * 1.6 + middle, wide.xy)
    seen = ((xy >= 0) & (xy <= 2 * middle)).all(axis=1)
    tracks = make_tracks(wide.track_id[seen], wide.photo_id[seen], xy[seen].astype(np.float32))
    photos = photo_set_of(far_and_near(poses), LENS)
    assert turn_fit(tracks, photos).share < 0.6
    assert turn_fit(tracks, photos, zoomed=True).share > 0.95
    moving = far_and_near([turned(12.6 * (i - 3.5), (0.25 * i, 0, 0)) for i in range(8)])
    assert turn_fit(exact_tracks(moving, noise=0.3), photo_set_of(moving, LENS), zoomed=True).share < 0.3


def test_turns_of_a_bent_lens_are_turns() -> None:
    lens = replace(LENS, params=(420.0, 319.5, 239.5, 0.1))
    tripod = far_and_near([turned(12.6 * (i - 3.5)) for i in range(8)], lens)
    guess = replace(LENS, params=(500.0, *LENS.params[1:]))
    assert turn_fit(exact_tracks(tripod, noise=0.2), photo_set_of(tripod, guess)).share > 0.95


def test_jacobian_of_turns_is_that_of_differences() -> None:
    moving = far_and_near([turned(12.6 * (i - 3.5), (0.25 * i, 0, 0)) for i in range(5)], n=60)
    for zoomed in (False, True):
        problem = evidence._turn_problem(
            exact_tracks(moving, noise=0.3), photo_set_of(moving, LENS), None, zoomed, 0
        )
        assert problem is not None
        values = problem.start(1.4) + np.random.default_rng(0).normal(
            scale=0.02, size=len(problem.start(1.4))
        )
        values[:3] = 0  # the rotation vector that divides by its length
        step = 1e-6
        differences = [
            (problem.residuals(values + step * axis) - problem.residuals(values - step * axis)) / (2 * step)
            for axis in np.eye(len(values))
        ]
        found = problem.jacobian(values)
        np.testing.assert_allclose(found, np.transpose(differences), atol=1e-4, rtol=1e-5)
        assert np.abs(found).max() > 100


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    scene = make_scene(RING, n=300, camera=LENS)
    photos = photo_set_of(scene, replace(LENS, params=(640.0, *LENS.params[1:])))
    tracks = exact_tracks(scene, noise=0.4)
    result, graph = mapped(tmp_path_factory.mktemp("ring"), photos, tracks)
    return scene, photos, tracks, graph, result


def test_a_good_model_is_sound_and_says_how_good(ring) -> None:  # type: ignore[no-untyped-def]
    _, photos, tracks, graph, result = ring
    trust = verdict_of(result.best, photos, graph, tracks)
    assert trust.verdict == "sound", trust.reasons
    assert trust.figures.turns_explain < 0.05
    assert trust.figures.used_share > 0.95
    assert trust.figures.halves_difference is not None
    assert trust_in_words(trust.as_json()).startswith("sound. Camera positions are good to about 0.")


def test_stated_deviations_are_those_of_repeated_noise(ring) -> None:  # type: ignore[no-untyped-def]
    """Against a Monte Carlo of the whole adjustment: the same tracks with fresh noise, eight times."""
    from recon.core.colmap import pycolmap
    from recon.sfm.adapter import model_from_tracks, points_of_tracks

    scene, photos, tracks, _, result = ring
    stated = uncertainty(model_arrays(result.best, photos)).centre
    xyz, _ = points_of_tracks(result.best, photos, tracks)
    names = [photo.name for photo in photos.photos]
    settings = replace(ONE_THREAD, refine_principal_point=False, loss_scale=100.0)
    errors = []
    for seed in range(8):
        fresh = exact_tracks(scene, noise=0.4, seed=100 + seed)
        model = model_from_tracks(pycolmap.Reconstruction(result.best), photos, fresh, xyz)
        refine_model(model, photos, settings, rounds=1)
        errors.append(centre_errors(camera_centers(model), scene, names) ** 2)
    true = np.sqrt(np.mean(errors, axis=0))
    np.testing.assert_allclose(np.median(stated / true), 1.0, rtol=0.3)


def test_parallax_is_that_of_each_point_for_itself(ring, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Points are looked at together that as many photos see, and some at a time."""
    _, photos, _, _, result = ring
    model = model_arrays(result.best, photos)
    angles, bases = [], []
    for index, xyz in enumerate(model.xyz):
        away = xyz - model.centre[model.photo[model.point == index]]
        if len(away) < 2:
            continue
        depth = np.linalg.norm(away, axis=1)
        unit = away / depth[:, None]
        angles.append(np.degrees(np.arccos(np.clip((unit @ unit.T).min(), -1, 1))))
        bases.append(max(np.linalg.norm(a - b) for a in away for b in away) / depth.mean())
    for at_once in (1_000_000, 50):
        monkeypatch.setattr(evidence, "_PAIRS_AT_ONCE", at_once)
        found = parallax(model)
        assert found.angle == pytest.approx(np.median(angles), rel=1e-9)
        assert found.base_to_depth == pytest.approx(np.median(bases), rel=1e-9)
    none = replace(model, point=np.arange(3), photo=model.photo[:3], xyz=model.xyz[:3])
    assert parallax(none) == Parallax(0.0, 0.0)


def test_points_that_err_alike_tell_less(ring) -> None:  # type: ignore[no-untyped-def]
    """Every point four times, with the same noise: a quarter of the points says as much; blocks of four know it."""
    _, photos, _, _, result = ring
    once = model_arrays(result.best, photos)
    p, o = len(once.xyz), len(once.xy)
    four = replace(
        once,
        xyz=np.tile(once.xyz, (4, 1)),
        point=np.concatenate([once.point + k * p for k in range(4)]),
        **{name: np.concatenate([getattr(once, name)] * 4) for name in ("photo", "xy", "residual")},
    )
    assert len(four.xy) == 4 * o
    alone = uncertainty(once, block=np.arange(p)).centre
    np.testing.assert_allclose(uncertainty(four, block=np.arange(4 * p) % p).centre, alone, rtol=1e-6)
    np.testing.assert_allclose(uncertainty(four).centre, uncertainty(once).centre / 2, rtol=0.05)
    assert 0.7 < np.median(alone / uncertainty(once).centre) < 1.3  # independent noise: both say the same


def test_deviations_from_sparse_factors_are_those_of_the_whole_matrix(ring, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    _, photos, _, _, result = ring
    free = replace(photos, cameras=tuple(replace(camera, known=False) for camera in photos.cameras))
    for of, alike in ((photos, 1), (photos, 5), (free, 1), (free, 5)):
        model = model_arrays(result.best, of)
        block = None if alike == 1 else np.arange(len(model.xyz)) // alike
        whole = uncertainty(model, block=block)
        with monkeypatch.context() as changed:
            changed.setattr(evidence, "MAX_DENSE_PHOTOS", 2)
            changed.setattr(evidence, "_POINTS_AT_ONCE", 1 + len(model.xyz) // 3)
            parts = uncertainty(model, block=block)
        np.testing.assert_allclose(parts.centre, whole.centre, rtol=1e-3)
        np.testing.assert_allclose(parts.focal, whole.focal, rtol=1e-3)
        assert parts.free == whole.free


@pytest.mark.parametrize(
    ("before", "agreement", "after"),
    [
        ({}, [0.99] * 10, "sound"),
        ({}, [0.99] * 7 + [0.3, 0.1, 0.6], "doubtful"),
        ({}, [0.99] * 2 + [0.3], "sound"),  # one photo may have bad depth for itself
        ({}, [0.99] * 8 + [0.3, 0.1], "sound"),
        ({}, [], "sound"),
        ({"halves_difference": 0.1}, [0.99] * 10, "doubtful"),
        ({"turns_explain": 0.95}, [0.1] * 10, "not a reconstruction"),
    ],
)
def test_depths_that_do_not_fit_together_are_a_doubt(
    before: dict[str, float], agreement: list[float], after: str
) -> None:
    trust = judge(replace(FINE, **before)).as_json()  # type: ignore[arg-type]
    told = with_depth(trust, depth_figures(agreement))
    assert told["verdict"] == after
    wrong = sum(one < 0.7 for one in agreement)
    said = wrong > 1 and wrong > 0.2 * len(agreement)
    assert len(told["reasons"]) - len(trust["reasons"]) == said
    assert (f"The depths of {wrong} of {len(agreement)} photos" in trust_in_words(told)) == said
    if agreement:
        assert told["figures"]["depth_agreement"] == pytest.approx(np.median(agreement), abs=1e-3)


def test_a_focal_length_that_the_photos_do_not_tell_is_uncertain() -> None:
    """A flat wall straight on: focal length and distance explain each other; from aside they do not."""
    from tests.support.sfm_scene import look_at

    rng = np.random.default_rng(1)
    wall = np.column_stack([rng.uniform(-3, 3, 400), rng.uniform(-2, 2, 400), rng.normal(size=400) * 0.01])
    straight = [np.column_stack([np.eye(3), [-x, 0.2 * (x > 0), 6.0]]) for x in np.linspace(-1, 1, 6)]
    aside = [look_at(np.array([x, 0.2, -5.0]), np.zeros(3)) for x in np.linspace(-4, 4, 6)]
    found = [focal_deviation(Scene(wall, poses, LENS)) for poses in (straight, aside)]
    assert found[0] > 0.05 > 0.02 > found[1]


def focal_deviation(scene: Scene) -> float:
    """Of a model that is the truth."""
    from recon.core.colmap import camera_from_intrinsics, image_id, pycolmap
    from recon.sfm.adapter import model_from_tracks

    photos, tracks = photo_set_of(scene), exact_tracks(scene, noise=0.3)
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(camera_from_intrinsics(scene.camera))
    for photo, pose in zip(photos.photos, scene.poses, strict=True):
        image = pycolmap.Image(name=photo.name, camera_id=1, image_id=image_id(photo.id))
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose))
    model = model_from_tracks(model, photos, tracks, scene.points)
    return float(uncertainty(model_arrays(model, photos)).focal[0])


def test_a_tripod_panorama_is_no_reconstruction(tmp_path: Path) -> None:
    """With a focal length that is free, mapping gives cameras on an arc; the verdict does not believe them."""
    scene = far_and_near([turned(12.6 * (i - 3.5)) for i in range(8)])
    photos = photo_set_of(scene, replace(LENS, params=(768.0, *LENS.params[1:])))
    tracks = exact_tracks(scene, noise=0.1)
    result, graph = mapped(tmp_path, photos, tracks)
    if result.best is None:
        pytest.skip("no model came of it, which is right too")
    trust = verdict_of(result.best, photos, graph, tracks)
    assert trust.verdict == "not a reconstruction"
    assert "only turned" in trust.reasons[0].what
    assert "walk sideways" in trust.reasons[0].advice


def test_a_lens_that_the_model_cannot_follow_is_doubtful(tmp_path: Path) -> None:
    lens = replace(LENS, params=(*LENS.params[:3], -0.25))
    scene = make_scene(RING, n=900, camera=lens)
    scene = replace(scene, points=scene.points * [1.7, 1.5, 1.5])  # they fill the photos
    rigid = Intrinsics("SIMPLE_PINHOLE", (640.0, 319.5, 239.5), 640, 480)
    tracks = exact_tracks(scene, noise=0.2)
    photos = photo_set_of(scene, rigid)
    result, graph = mapped(tmp_path, photos, tracks)
    assert result.best is not None
    trust = verdict_of(result.best, photos, graph, tracks)
    assert trust.verdict == "doubtful"
    assert any("the lens bends" in reason.what for reason in trust.reasons)


FINE = Figures(
    photos=9,
    registered=9,
    models=1,
    second_model=0,
    tracks=1000,
    tracks_used=950,
    noise_px=0.4,
    turns_explain=0.02,
    turns_miss_px=12.0,
    planar_pairs=0.1,
    angle=14.0,
    base_to_depth=0.4,
    centre_deviation=0.001,
    worst_centre_deviation=0.002,
    focal_deviation=0.002,
    halves_difference=0.002,
    worst_halves_difference=0.004,
    systematic_px=0.02,
    contradicted_pairs=0.0,
)


@pytest.mark.parametrize(
    ("change", "verdict", "word"),
    [
        ({}, "sound", ""),
        ({"turns_explain": 0.95}, "not a reconstruction", "only turned"),
        ({"turns_explain": 0.7}, "doubtful", "hardly moved"),
        ({"tracks": 4606, "tracks_used": 60}, "not a reconstruction", "60 of 4606"),
        ({"centre_deviation": 0.03}, "doubtful", "uncertain by 3.0%"),
        ({"focal_deviation": 0.2}, "doubtful", "focal length"),
        ({"halves_difference": 0.1}, "doubtful", "Two halves"),
        ({"systematic_px": 0.5}, "doubtful", "place in the photo"),
        ({"contradicted_pairs": 0.3}, "doubtful", "30% of the pairs"),
        (
            {"far_pairs": ("a and b", "b and c"), "far_chance": 0.1},
            "doubtful",
            "stood otherwise, more than chance explains: a and b, b and c",
        ),
        ({"far_pairs": ("a and b", "b and c", "d and e"), "far_chance": 0.8}, "sound", ""),
        ({"missing_pairs": ("a and b",) * 4, "missing_share": 0.4}, "doubtful", "do not match: a and b"),
        ({"missing_pairs": ("a and b",) * 4, "missing_share": 0.1}, "sound", ""),
        (
            {"odd_focal": ("the camera of a.jpg has 1.3 times",), "focal_deviation": 0.02},
            "doubtful",
            "1.3 times",
        ),
        ({"odd_focal": ("the camera of a.jpg has 1.3 times",)}, "sound", ""),
        ({"odd_focal": ("a",), "far_pairs": ("a and b", "b and c"), "far_chance": 0.1}, "sound", ""),
        ({"models": 2, "second_model": 3, "registered": 6}, "doubtful", "2 models"),
        ({"loose_photos": ("a.jpg", "b.jpg", "c.jpg")}, "doubtful", "a.jpg"),
        ({"odd_cameras": ("the camera of a.jpg looks past",)}, "doubtful", "Unusual camera"),
        ({"intrinsics_fixed": True, "guessed_focal": True}, "doubtful", "small angles"),
        ({"intrinsics_fixed": True, "guessed_focal": False}, "sound", ""),
    ],
)
def test_verdicts(change: dict, verdict: str, word: str) -> None:  # type: ignore[type-arg]
    trust = judge(replace(FINE, **change))
    assert trust.verdict == verdict
    assert word in " ".join(reason.what for reason in trust.reasons)
    assert (verdict == "sound") == (not trust.reasons)
    assert all(reason.advice for reason in trust.reasons)
    assert trust_in_words(trust.as_json()).startswith(verdict)


def test_a_focal_length_that_the_photos_tell_is_believed_against_exif_and_said() -> None:
    trust = judge(replace(FINE, odd_focal=("the camera of a.jpg has 1.3 times the focal length told",)))
    assert trust_in_words(trust.as_json()).endswith(
        "1.3 times the focal length told; the photos tell theirs well."
    )


def test_likely_pairs_that_saw_their_cameras_elsewhere_are_named() -> None:
    scene = make_scene(RING)
    photos, tracks = photo_set_of(scene), exact_tracks(scene)
    graph, _ = graph_of(photos, tracks)
    for edge in graph.edges:
        graph.edges[edge]["evidence"] = 0.95
    moved = list(scene.poses)
    moved[2] = moved[6]  # the model took photo 2 for one of photo 6's place
    model = map_known(photos, tracks, dict(enumerate(moved)), MappingSettings(threads=1)).best
    assert model is not None
    named, share, chance = far_pairs(model, photos, graph)
    assert named
    assert all("photo02.jpg" in one for one in named)
    assert 0.05 < share < 0.5
    assert chance < 0.1
    right = map_known(photos, tracks, dict(enumerate(scene.poses)), MappingSettings(threads=1)).best
    assert right is not None
    assert far_pairs(right, photos, graph) == ((), 0.0, 1.0)
    # The less likely the pairs, the less do as many contradictions say.
    for edge in graph.edges:
        graph.edges[edge]["evidence"] = 0.85
    assert far_pairs(model, photos, graph)[2] > chance


def test_known_cameras_are_never_odd() -> None:
    assert photo_set_of(make_scene(RING)).cameras[0] == KNOWN


def test_another_model_can_be_gone_on_with(tmp_path: Path) -> None:
    """Two groups of photos of two things: the smaller model comes first when it is asked for."""
    first = make_scene(RING[:5], n=200, camera=LENS)
    second = make_scene(RING[4:], n=200, seed=3, camera=LENS)
    both = Scene(first.points, [*first.poses, *second.poses], LENS)
    a, b = exact_tracks(first), exact_tracks(second)
    tracks = make_tracks(
        np.concatenate([a.track_id, b.track_id + a.count]),
        np.concatenate([a.photo_id, b.photo_id + 5]),
        np.concatenate([a.xy, b.xy]),
    )
    photos = photo_set_of(both, replace(LENS, known=True))
    result, graph = mapped(tmp_path, photos, tracks)
    assert [len(model.reg_image_ids()) for model in result.reconstructions] == [5, 4]
    assert with_model_first(result, 0, photos, graph) is result
    other = with_model_first(result, 1, photos, graph)
    assert other.best is result.reconstructions[1]
    assert {out.name for out in other.left_out} == {f"photo{i:02d}.jpg" for i in range(5)}
    assert all("sparse/1" in out.reason for out in other.left_out)
    with pytest.raises(ValueError, match="there is no model 2"):
        with_model_first(result, 2, photos, graph)


@pytest.mark.parametrize(("still_open", "verdict"), [(True, "doubtful"), (False, "sound")])
def test_photos_that_speak_for_other_cameras_make_a_model_doubtful_unless_they_were_taken(
    still_open: bool, verdict: str
) -> None:
    tests = (
        CameraTest("lens model RADIAL", 0.4, 0.39, 1.0),
        CameraTest(OTHER_THAN_GIVEN, 0.42, 0.18, 15.0, taken=True, moves=0.02, bends=0.03, focal=0.77),
    )
    trust = judge(replace(FINE, camera_tests=tests, cameras_open=still_open))
    assert trust.verdict == verdict
    words = trust_in_words(trust.as_json())
    assert OTHER_THAN_GIVEN in words
    assert ("0.18 instead of 0.42 pixels" in words) == still_open
    assert ("a focal length 0.77 times as long" in words) == still_open
    assert ("--intrinsics" in words) == still_open
    assert "RADIAL" not in words


def test_given_intrinsics_that_are_wrong_by_little_are_no_doubt_and_are_said() -> None:
    """What counts is what other cameras would change: little, of cameras and points."""
    little = CameraTest(OTHER_THAN_GIVEN, 0.42, 0.38, 9.0, taken=True, moves=0.003, bends=0.004)
    trust = judge(replace(FINE, camera_tests=(little,), cameras_open=True))
    assert trust.verdict == "sound"
    assert trust.figures.stated_deviation == pytest.approx(np.hypot(0.001, 0.003))
    words = trust_in_words(trust.as_json())
    assert "good to about 0.32%" in words
    assert f"speak for {OTHER_THAN_GIVEN}; those would move the cameras by only 0.3%" in words
    for much in (replace(little, moves=0.009), replace(little, bends=0.02)):
        assert judge(replace(FINE, camera_tests=(much,), cameras_open=True)).verdict == "doubtful"


def test_halves_that_differ_by_more_than_the_tracks_promise_are_stated() -> None:
    trust = judge(replace(FINE, halves_difference=0.01))
    assert trust.verdict == "sound"
    assert "good to about 0.50%" in trust_in_words(trust.as_json())
    assert judge(replace(FINE, halves_difference=None)).figures.stated_deviation == FINE.centre_deviation


def test_other_cameras_that_are_only_likely_are_a_doubt_if_they_would_stand_elsewhere() -> None:
    likely = CameraTest("3 cameras", 0.43, 0.35, 3.0, moves=0.045)
    trust = judge(replace(FINE, camera_tests=(likely,)))
    assert trust.verdict == "doubtful"
    assert "3 cameras would fit" in trust.reasons[0].what
    assert "4.5%" in trust.reasons[0].what
    for other in (
        replace(likely, moves=0.004),
        replace(likely, standard_errors=1.0),
        replace(likely, after_px=0.425),
    ):
        assert judge(replace(FINE, camera_tests=(other,))).verdict == "sound"
    # What was asked before other cameras were taken was compared with those that are no longer there.
    taken = CameraTest("2 cameras", 0.43, 0.2, 9.0, taken=True, moves=0.05)
    assert judge(replace(FINE, camera_tests=(likely, taken))).verdict == "sound"


def test_a_model_of_some_photos_is_called_a_part_and_not_wrong() -> None:
    parts = judge(replace(FINE, photos=20, models=2, second_model=6))
    assert trust_in_words(parts.as_json()).startswith("doubtful: a part of what was photographed is missing.")
    joining = judge(replace(FINE, photos=20, models=2, second_model=6, gaps=("a.jpg and b.jpg",)))
    assert "between a.jpg and b.jpg" in joining.reasons[0].advice
    assert "map.model=1" in joining.reasons[0].advice
    both = judge(replace(FINE, photos=20, models=2, second_model=6, halves_difference=0.05))
    assert trust_in_words(both.as_json()).startswith("doubtful: the cameras, and all that is made from them")
