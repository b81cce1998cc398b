"""Pairs whose arrays stay in memory."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from recon.errors import ReconError
from recon.matching.types import DenseMatch, FlowField
from recon.run import matches
from recon.run.matches import read_dense_match, write_dense_match


def some_match(seed: int) -> DenseMatch:
    rng = np.random.default_rng(seed)
    fields = [
        FlowField(
            rng.integers(-64, 64, (6, 8, 2)).astype(np.float32) / 32,
            (rng.integers(0, 256, (6, 8)) / np.float32(255)).astype(np.float32),
        )
        for _ in "ab"
    ]
    known = [rng.random((6, 8)) < 0.5 for _ in "ab"]
    return DenseMatch(fields[0], fields[1], known[0], known[1])


def assert_same(one: DenseMatch, other: DenseMatch) -> None:
    for a, b in ((one.a_to_b, other.a_to_b), (one.b_to_a, other.b_to_a)):
        np.testing.assert_array_equal(a.flow, b.flow)
        np.testing.assert_allclose(a.confidence, b.confidence, atol=1e-6)
    np.testing.assert_array_equal(one.consistent_a, other.consistent_a)
    np.testing.assert_array_equal(one.consistent_b, other.consistent_b)


def test_what_stays_in_memory_is_what_lies_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "0_1"
    write_dense_match(path, some_match(1))
    kept = read_dense_match(path)
    kept.a_to_b.flow[:] = 7  # what is handed out belongs to who asked
    kept.consistent_a[:] = False
    assert_same(read_dense_match(path), some_match(1))
    matches.forget_recent_matches()
    assert matches._recent.bytes == 0
    assert_same(read_dense_match(path), some_match(1))


def test_a_pair_is_not_read_from_its_files_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "0_1"
    write_dense_match(path, some_match(1))
    moved = path.rename(tmp_path / "1_2")
    asked = []
    read_zarr = matches.read_zarr
    monkeypatch.setattr(matches, "read_zarr", lambda part: asked.append(part) or read_zarr(part))
    assert_same(read_dense_match(moved), some_match(1))
    assert len(asked) == 6
    assert_same(read_dense_match(moved), some_match(1))
    assert len(asked) == 6


def test_another_pair_in_its_place_is_read(tmp_path: Path) -> None:
    path = tmp_path / "0_1"
    write_dense_match(path, some_match(1))
    read_dense_match(path)
    shutil.rmtree(path)
    with pytest.raises(ReconError):
        read_dense_match(path)
    write_dense_match(path, some_match(2))
    assert_same(read_dense_match(path), some_match(2))


def test_a_file_that_was_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "0_1"
    write_dense_match(path, some_match(1))
    read_dense_match(path)
    for one in (path / "flow_a").rglob("*"):
        if one.is_file():
            one.write_bytes(b"damaged")
    with pytest.raises(ReconError):
        read_dense_match(path)
