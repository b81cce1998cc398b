"""Errors of depth maps by hand, and the files that hold them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from recon.errors import ReconError
from recon.evaluation.depth import evaluate_depth, resize_truth_depth, truth_at_pixels
from recon.io.depth_maps import read_depth_map


def test_errors_by_hand() -> None:
    truth = np.array([[2.0, 4.0, 10.0, 0.0], [5.0, np.nan, 8.0, 1.0]], np.float32)
    depth = np.array([[2.0, 4.2, 0.0, 3.0], [4.0, 1.0, np.inf, 1.005]], np.float32)
    report = evaluate_depth(depth, truth, (0.01, 0.1), absolute=(0.01, 0.5))
    assert report.coverage == pytest.approx(4 / 6)
    errors = [0.0, 0.2, 1.0, 0.005]
    assert report.mean == pytest.approx(np.mean(errors), rel=1e-5)
    assert report.median == pytest.approx(np.median(errors), rel=1e-4)
    assert report.rms == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-5)
    assert report.relative == pytest.approx((0 + 0.05 + 0.2 + 0.005) / 4, rel=1e-4)
    assert report.within == {0.01: 0.5, 0.1: 0.75}
    assert report.within_absolute == {0.01: 0.5, 0.5: 0.75}
    assert report.correct == pytest.approx({0.01: 2 / 6, 0.1: 3 / 6})
    assert "coverage 66.7%" in report.text()


def test_nothing_to_compare() -> None:
    nothing = evaluate_depth(np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32))
    assert nothing.coverage == 0
    assert np.isnan(nothing.median)
    assert set(nothing.correct.values()) == {0.0}
    with pytest.raises(ValueError, match="nowhere"):
        evaluate_depth(np.ones((2, 2)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="truth"):
        evaluate_depth(np.ones((2, 2)), np.ones((2, 3)))


def test_truth_at_another_size() -> None:
    truth = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(resize_truth_depth(truth, 4, 3), truth)
    big = resize_truth_depth(truth, 8, 6)
    np.testing.assert_array_equal(big, np.repeat(np.repeat(truth, 2, 0), 2, 1))
    np.testing.assert_array_equal(resize_truth_depth(big, 4, 3), truth)
    found = truth_at_pixels(truth, np.array([[0, 0], [7, 5], [-1, 0], [8, 0]]), 8, 6)
    assert found.tolist() == [1, 12, 0, 0]


def test_files_of_depth(tmp_path: Path) -> None:
    depth = np.array([[1.5, 0, 2.5], [3.5, 4.5, 5.5]], np.float32)
    np.savez(tmp_path / "a.npz", depth=depth)
    np.save(tmp_path / "a.npy", np.where(depth > 0, depth, -1).astype(np.float64))
    # COLMAP's documentation of the format: text "width&height&channels&", then float32, row by row.
    (tmp_path / "a.bin").write_bytes(b"3&2&1&" + struct.pack("<6f", *depth.ravel()))
    # PFM: rows from the bottom up; a negative scale means little-endian.
    (tmp_path / "a.pfm").write_bytes(b"Pf\n3 2\n-1.0\n" + struct.pack("<6f", *depth[::-1].ravel()))
    (tmp_path / "b.pfm").write_bytes(b"Pf\n3 2\n1.0\n" + struct.pack(">6f", *depth[::-1].ravel()))
    for name in ("a.npz", "a.npy", "a.bin", "a.pfm", "b.pfm"):
        found = read_depth_map(tmp_path / name)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, depth)


def test_files_that_hold_no_depth(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"3&2&1&" + b"\0" * 8)
    (tmp_path / "a.pfm").write_bytes(b"PF\n1 1\n-1\n" + b"\0" * 12)
    np.savez(tmp_path / "a.npz", other=np.zeros(3))
    np.save(tmp_path / "a.npy", np.zeros(3))
    (tmp_path / "a.tif").write_bytes(b"")
    for name in ("a.bin", "a.pfm", "a.npz", "a.npy", "a.tif", "none.npy"):
        with pytest.raises(ReconError, match=name.replace(".", r"\.")):
            read_depth_map(tmp_path / name)
