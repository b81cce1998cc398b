"""Zarr stores written without the library, read by it, and the other way round."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from recon.io.zarr_files import read_array, read_attributes, write_group

V3 = int(zarr.__version__.split(".")[0]) >= 3


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "steps": rng.integers(-32768, 32767, (7, 5, 2)).astype(np.int16),
        "shares": rng.integers(0, 255, (7, 5)).astype(np.uint8),
        "known": rng.random((7, 5)) > 0.5,
        "nothing": np.zeros((7, 5), np.uint8),
    }


@pytest.mark.skipif(not V3, reason="zarr 2 does not read version 3")
def test_the_library_reads_what_is_written_here(tmp_path: Path) -> None:
    write_group(tmp_path / "g", arrays(), {"seconds": 1.5})
    group = zarr.open_group(str(tmp_path / "g"), mode="r")
    assert dict(group.attrs) == {"seconds": 1.5}
    for name, values in arrays().items():
        assert group[name].dtype == values.dtype
        np.testing.assert_array_equal(group[name][...], values)


def test_arrays_come_back_and_can_be_changed(tmp_path: Path) -> None:
    write_group(tmp_path / "g", {}, {"seconds": 2.0})
    write_group(tmp_path / "g", arrays(), {"seconds": 1.5})
    assert read_attributes(tmp_path / "g") == {"seconds": 1.5}
    for name, values in arrays().items():
        found = read_array(tmp_path / "g" / name, 1000)
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values)
        found[0] = 1
    with pytest.raises(ValueError, match="claims to hold"):
        read_array(tmp_path / "g" / "steps", 100)
    with pytest.raises(FileNotFoundError):
        read_array(tmp_path / "g" / "else", 1000)


def test_arrays_of_the_library_are_read(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.int16).reshape(4, 3)
    for name, chunks in (("parts", (2, 3)), ("whole", (4, 3))):
        array = zarr.open_array(str(tmp_path / name), mode="w", shape=(4, 3), chunks=chunks, dtype="int16")
        array[...] = values
        np.testing.assert_array_equal(read_array(tmp_path / name, 1000), values)


def test_a_damaged_chunk_is_an_error(tmp_path: Path) -> None:
    write_group(tmp_path / "g", arrays())
    chunk = tmp_path / "g" / "steps" / "c" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-3])
    with pytest.raises((RuntimeError, ValueError)):
        read_array(tmp_path / "g" / "steps", 1000)
