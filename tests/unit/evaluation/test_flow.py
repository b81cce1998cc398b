"""Flow errors against hand-computed values, and the .flo format against its description."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon.errors import ReconError
from recon.evaluation.flow import angular_errors, evaluate_flow, known_flow
from recon.io.flo import read_flo, write_flo


def test_errors_by_hand() -> None:
    truth = np.zeros((1, 4, 2), np.float32)
    flow = truth.copy()
    flow[0, 1] = (3, 4)  # endpoint error 5; angle between (3,4,1) and (0,0,1): acos(1/sqrt(26))
    flow[0, 2] = (1, 0)  # endpoint error 1; 45 degrees
    truth[0, 3] = 1e10  # unknown
    report = evaluate_flow(flow, truth, thresholds=(0.5, 1.0, 3.0))
    assert report.count == 3
    assert report.endpoint == pytest.approx(2.0)
    assert report.angular == pytest.approx((np.degrees(np.arccos(1 / np.sqrt(26))) + 45) / 3)
    assert report.outliers == pytest.approx({0.5: 2 / 3, 1.0: 1 / 3, 3.0: 1 / 3})
    masked = evaluate_flow(flow, truth, np.array([[True, False, True, True]]))
    assert masked.endpoint == pytest.approx(0.5)


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[st.floats(-20, 20) for _ in range(4)]))
def test_angle_is_the_arc_cosine(values: tuple[float, ...]) -> None:
    u, v, s, t = values
    cosine = (u * s + v * t + 1) / np.sqrt((u * u + v * v + 1) * (s * s + t * t + 1))
    angle = angular_errors(np.array([[[u, v]]]), np.array([[[s, t]]]))[0, 0]
    assert np.cos(np.radians(angle)) == pytest.approx(cosine, abs=1e-9)


def test_refuses_to_compare_nothing() -> None:
    with pytest.raises(ValueError, match="nowhere"):
        evaluate_flow(np.zeros((2, 2, 2)), np.full((2, 2, 2), np.nan))
    with pytest.raises(ValueError, match="truth"):
        evaluate_flow(np.zeros((2, 2, 2)), np.zeros((2, 3, 2)))


def test_flo_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.flo"
    flow = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    write_flo(path, flow)
    assert path.read_bytes() == b"PIEH" + struct.pack("<ii", 3, 2) + struct.pack("<12f", *range(12))
    np.testing.assert_array_equal(read_flo(path), flow)


def test_flo_unknown_and_broken(tmp_path: Path) -> None:
    path = tmp_path / "a.flo"
    flow = np.zeros((2, 2, 2), np.float32)
    flow[1, 1] = np.nan
    write_flo(path, flow)
    np.testing.assert_array_equal(known_flow(read_flo(path)), [[True, True], [True, False]])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ReconError, match="2x2"):
        read_flo(path)
    path.write_bytes(b"P6 text")
    with pytest.raises(ReconError, match=r"not a \.flo"):
        read_flo(path)
    with pytest.raises(ReconError, match="cannot be read"):
        read_flo(tmp_path / "none.flo")


def test_middlebury_truth(shared_data: Path) -> None:
    """RubberWhale's true motion is a few pixels, some of it unknown (Baker et al. 2011)."""
    flow = read_flo(shared_data / "datasets" / "flow_middlebury" / "RubberWhale" / "flow10.flo")
    known = known_flow(flow)
    assert flow.shape == (388, 584, 2)
    assert 0.9 < known.mean() < 1.0
    assert 1 < np.linalg.norm(flow[known], axis=-1).max() < 10


def test_kitti_outliers_by_hand() -> None:
    """Above 3 px and above 5%: 4 px of 100 is right, of 50 wrong; 2.9 px of 1 is right."""
    truth = np.array([[[100, 0], [50, 0], [1, 0], [0, 0]]], np.float32)
    flow = truth + np.array([[[0, 4], [0, 4], [2.9, 0], [3.1, 0]]], np.float32)
    report = evaluate_flow(flow, truth)
    assert report.fl == pytest.approx(0.5)
    assert report.median == pytest.approx(3.55)
    assert "Fl 50.00%" in report.text()


def test_what_is_missing_is_an_outlier_or_left_out() -> None:
    truth = np.ones((1, 4, 2), np.float32)
    flow = truth.copy()
    flow[0, 0] = np.nan
    flow[0, 1] = 2e9
    report = evaluate_flow(flow, truth)
    assert report.endpoint == pytest.approx(np.sqrt(2) / 2)
    assert report.outliers == {1.0: 0.5, 3.0: 0.5, 5.0: 0.5}
    assert report.fl == 0.5
    assert report.missing == 0.5
    kept = evaluate_flow(flow, truth, missing="skip")
    assert (kept.endpoint, kept.count, kept.missing) == (0.0, 2, 0.5)
    with pytest.raises(ValueError, match="nowhere"):
        evaluate_flow(np.full_like(truth, np.nan), truth, missing="skip")
