"""Adjustment with control points: against the truth, against a solver of SciPy's, and its own statement of errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from recon.core.colmap import pycolmap
from recon.sfm.control import Adjustment, adjust, find_wrong, intersect
from recon.sfm.evidence import ModelArrays, projected
from tests.support.survey import Survey, bowl, gps, make_survey


def errors(found: Adjustment, survey: Survey) -> np.ndarray:
    return np.asarray(found.place - survey.control_truth)


def test_control_points_straighten_a_bowl() -> None:
    survey = make_survey(3)
    found = adjust(bowl(survey.model, 1.5), survey.control)
    off = found.precision.model.xyz - survey.truth.xyz
    assert np.median(np.abs(off)) < 0.06
    assert np.abs(errors(found, survey)).max() < 0.1
    bent = bowl(survey.truth, 1.5).xyz - survey.truth.xyz
    assert np.median(np.abs(bent[:, 2])) > 0.5


def test_a_principal_point_that_was_found_is_found_better() -> None:
    """One that an earlier adjustment left 8 and 6 px off: it moves, and check points are off by what is stated."""
    ratio = []
    for seed in range(3):
        survey = make_survey(seed, controls=12, points=100, middle=(259.5, 188.5))
        camera = pycolmap.Camera(survey.model.cameras[0].todict())
        camera.principal_point_x += 8.0
        camera.principal_point_y -= 6.0
        keep = np.arange(len(survey.control.names)) < 6
        found = adjust(replace(survey.model, cameras=(camera,)), survey.control.only(keep))
        after = found.precision.model.cameras[0]
        row = {index: 6 * len(survey.model.photos) + k for k, (_, index) in enumerate(found.precision.lens)}
        stated = np.sqrt(np.diag(found.precision.covariance))[[row[i] for i in after.principal_point_idxs()]]
        off = np.array([after.principal_point_x - 260.0, after.principal_point_y - 189.0])
        assert (np.abs(off) < 3 * stated).all()
        assert stated.max() < 5
        for k in np.flatnonzero(~keep):
            at = survey.control.point == k
            photo, xy = survey.control.photo[at], survey.control.xy[at]
            place, covariance, _ = intersect(found.precision, survey.control.place[k], photo, xy, 0.4)
            ratio += ((place - survey.control_truth[k]) / np.sqrt(np.diag(covariance))).tolist()
    assert np.mean(np.abs(ratio) < 2) > 0.9


def test_same_optimum_as_a_general_solver() -> None:
    """SciPy's least squares with numeric derivatives over the same weighted residuals (linear loss for both)."""
    survey = make_survey(1, points=14, controls=5, noise=0.02, known=True)
    found = adjust(survey.model, survey.control, steps=60)
    model, control, noise = survey.model, survey.control, found.precision.noise
    n, p = len(model.photos), len(model.xyz)

    def state(u: np.ndarray) -> tuple[ModelArrays, np.ndarray]:
        turn = Rotation.from_rotvec(u[: 3 * n].reshape(n, 3)).as_matrix()
        points = u[6 * n :].reshape(-1, 3)
        moved = replace(
            model,
            rotation=turn @ model.rotation,
            centre=model.centre + u[3 * n : 6 * n].reshape(n, 3),
            xyz=points[:p],
        )
        return moved, points[p:]

    def residuals(u: np.ndarray) -> np.ndarray:
        moved, place = state(u)
        marks = replace(
            moved, xyz=place, point=control.point, photo=control.photo, xy=control.xy, residual=control.xy
        )
        tracks = (model.xy - projected(moved)) / noise
        weight = np.sqrt(
            4 * np.log1p((tracks**2).sum(axis=1) / 4) / np.maximum((tracks**2).sum(axis=1), 1e-30)
        )
        parts = [
            (tracks * weight[:, None]).ravel(),
            ((control.xy - projected(marks)) / control.mark_px).ravel(),
            ((place - control.place) / control.sigma).ravel(),
        ]
        return np.concatenate(parts)

    start = np.concatenate([np.zeros(6 * n), model.xyz.ravel(), control.place.ravel()])
    solved = least_squares(residuals, start, method="trf", x_scale="jac", max_nfev=200)
    moved, place = state(solved.x)
    np.testing.assert_allclose(found.precision.model.centre, moved.centre, atol=0.01)
    np.testing.assert_allclose(found.place, place, atol=0.003)


def test_errors_are_as_large_as_stated() -> None:
    """Over many surveys nine tenths of the points are off by less than twice what is stated, and not by far less."""
    ratio, checked = [], []
    for seed in range(9):
        survey = make_survey(seed, controls=12, points=100)
        keep = np.arange(len(survey.control.names)) < 6
        found = adjust(survey.model, survey.control.only(keep))
        off = found.place - survey.control_truth[keep]
        ratio += (off / np.sqrt(np.einsum("cii->ci", found.covariance))).ravel().tolist()
        for k in np.flatnonzero(~keep):
            marks = survey.control.point == k
            place, covariance, _ = intersect(
                found.precision,
                survey.control.place[k],
                survey.control.photo[marks],
                survey.control.xy[marks],
                survey.control.mark_px,
            )
            checked += ((place - survey.control_truth[k]) / np.sqrt(np.diag(covariance))).tolist()
    for values in (ratio, checked):
        assert np.mean(np.abs(values) < 2) > 0.9
        assert 0.6 < np.sqrt(np.mean(np.square(values))) < 1.35


def test_covariance_of_two_points_gives_that_of_their_distance() -> None:
    """Two neighbours share the cameras' errors: their distance is known far better than either of them."""
    far, near = [], []
    for seed in range(8):
        survey = make_survey(seed, sigma=(0.2, 0.2, 0.2), controls=12, points=80)
        keep = np.arange(len(survey.control.names)) < 5
        found = adjust(survey.model, survey.control.only(keep))
        a, b = 6, 7
        truth = survey.control_truth
        marks = np.isin(survey.control.point, (a, b))
        places = [
            intersect(found.precision, truth[k], survey.control.photo[m], survey.control.xy[m], 0.4)[0]
            for k in (a, b)
            for m in [survey.control.point == k]
        ]
        joint = found.precision.of_points(
            np.array(places), survey.control.point[marks] - a, survey.control.photo[marks], 0.4
        )
        toward = (truth[b] - truth[a]) / np.linalg.norm(truth[b] - truth[a])
        along = np.concatenate([-toward, toward])
        stated = float(np.sqrt(along @ joint @ along))
        far.append(np.sqrt(np.trace(joint[:3, :3])) / stated)
        length = np.linalg.norm(places[1] - places[0]) - np.linalg.norm(truth[b] - truth[a])
        near.append(length / stated)
    assert np.median(far) > 1.5
    assert 0.4 < np.sqrt(np.mean(np.square(near))) < 1.5


def test_wrong_point_is_found_and_named() -> None:
    hits = 0
    for seed in range(4):
        survey = make_survey(seed)
        assert find_wrong(adjust(survey.model, survey.control))[0] is None
        place = survey.control.place.copy()
        place[2] += (0.0, 0.4, 0.0)
        wrong, _ = find_wrong(adjust(survey.model, replace(survey.control, place=place)))
        hits += wrong == 2
    assert hits == 4


def test_leave_one_out_is_what_the_others_say() -> None:
    survey = make_survey(4)
    whole = adjust(survey.model, survey.control, steps=40)
    sigma = survey.control.sigma.copy()
    sigma[3] = 1e3  # as if it had not been measured; its marks stay
    without = adjust(whole.precision.model, replace(survey.control, sigma=sigma), steps=40)
    misfit = survey.control.place[3] - without.place[3]
    np.testing.assert_allclose(whole.leave_one_out[3], misfit, atol=0.003)
    expected = without.covariance[3] + np.diag(survey.control.sigma[3] ** 2)
    np.testing.assert_allclose(whole.leave_one_out_covariance[3], expected, rtol=0.1, atol=1e-5)


def test_exact_positions_of_cameras_do_without_control() -> None:
    survey = make_survey(5)
    found = adjust(bowl(survey.model, 1.0), None, gps(survey, (0.02, 0.02, 0.03)))
    assert np.abs(found.precision.model.centre - survey.truth.centre).max() < 0.1
    sigma = np.sqrt(np.einsum("nii->ni", found.precision.centres()))
    assert sigma.max() < 0.05


def test_without_any_reference_only_the_shape_counts() -> None:
    survey = make_survey(6)
    found = adjust(survey.truth, None, None, move=False)
    np.testing.assert_array_equal(found.precision.model.centre, survey.truth.centre)
    sigma = np.sqrt(np.einsum("nii->ni", found.precision.centres()))
    assert np.isfinite(sigma).all()
    assert 0 < sigma.max() < 0.5


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_references_do_no_harm(count: int) -> None:
    survey = make_survey(7)
    keep = np.arange(len(survey.control.names)) < count
    found = adjust(survey.truth, survey.control.only(keep))
    assert np.abs(found.precision.model.centre - survey.truth.centre).max() < 5.0
    assert np.isfinite(found.precision.covariance).all()
