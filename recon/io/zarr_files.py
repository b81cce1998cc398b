"""Zarr stores (version 3) of small arrays, each one chunk: written and read here, because the library takes
milliseconds for each array that it opens."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numcodecs.zstd import Zstd

_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
# Flow is hardly larger at level 1 than at 3, and takes a third of the time.
_LEVEL = 1
_ZSTD = {"name": "zstd", "configuration": {"level": _LEVEL, "checksum": False}}


def write_group(
    path: Path, arrays: Mapping[str, npt.NDArray[Any]], attributes: Mapping[str, Any] | None = None
) -> None:
    """Write a group and its arrays; what is there already is overwritten."""
    path.mkdir(parents=True, exist_ok=True)
    _write_json(path, {"attributes": dict(attributes or {}), "zarr_format": 3, "node_type": "group"})
    for name, values in arrays.items():
        chunk = path.joinpath(name, "c", *["0"] * values.ndim)
        chunk.parent.mkdir(parents=True, exist_ok=True)
        shape = list(values.shape)
        about = {
            "shape": shape,
            "data_type": values.dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shape}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": False if values.dtype == np.bool_ else 0,
            "codecs": [_BYTES if values.itemsize > 1 else {"name": "bytes"}, _ZSTD],
            "attributes": {},
            "zarr_format": 3,
            "node_type": "array",
            "storage_transformers": [],
        }
        _write_json(path / name, about)
        little = values.astype(values.dtype.newbyteorder("<"), "C", copy=False)
        chunk.write_bytes(Zstd(level=_LEVEL).encode(little))


def _write_json(folder: Path, about: Mapping[str, Any]) -> None:
    (folder / "zarr.json").write_text(json.dumps(about), encoding="utf-8")


def read_array(path: Path, most_bytes: int) -> npt.NDArray[Any]:
    """Read an array: one of ``write_group`` here, any other one with the library.

    Raises:
        ValueError: it claims to hold more than ``most_bytes``.
        Exception: of any kind where it is damaged.
    """
    if not path.is_dir():
        raise FileNotFoundError(path)
    about = path / "zarr.json"
    found = json.loads(about.read_text(encoding="utf-8")) if about.is_file() else {}
    shape, codecs = found.get("shape"), found.get("codecs", ())
    chunk = path.joinpath("c", *["0"] * len(shape or ()))
    plain = (
        found.get("chunk_grid") == {"name": "regular", "configuration": {"chunk_shape": shape}}
        and [one["name"] for one in codecs] == ["bytes", "zstd"]
        and codecs[0] in (_BYTES, {"name": "bytes"})
        and chunk.is_file()
    )
    if not plain:
        return _read_by_library(path, most_bytes)
    kind = np.dtype(found["data_type"]).newbyteorder("<")
    size = math.prod(shape or ()) * kind.itemsize
    _check_size(size, most_bytes)
    data = Zstd().decode(chunk.read_bytes())
    if len(data) != size:
        raise ValueError("its chunk is of another size")
    return np.frombuffer(data, kind).reshape(shape).copy()


def _read_by_library(path: Path, most_bytes: int) -> npt.NDArray[Any]:
    import zarr

    array = zarr.open_array(str(path), mode="r")
    _check_size(array.nbytes, most_bytes)
    values: npt.NDArray[Any] = array[...]
    return values


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise ValueError(f"claims to hold {size >> 20} MB")


def read_attributes(path: Path) -> dict[str, Any]:
    """Read the attributes of a group."""
    about = path / "zarr.json"
    if about.is_file():
        found: dict[str, Any] = json.loads(about.read_text(encoding="utf-8"))["attributes"]
        return found
    import zarr

    return dict(zarr.open_group(str(path), mode="r").attrs)
