"""The safetensors format: a table of named tensors without any code in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from recon.io.files import parse_json

_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
_NAMES = {np.dtype(code): name for name, code in _TYPES.items()}


def pack(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file of these arrays; equal content gives equal bytes.

    Raises:
        ValueError: an array has a type that the format lacks.
    """
    header: dict[str, Any] = {}
    if metadata:
        header["__metadata__"] = dict(sorted(metadata.items()))
    chunks, offset = [], 0
    for name in sorted(tensors):
        array = np.asarray(tensors[name])
        kind = _NAMES.get(array.dtype.newbyteorder("<"))
        if kind is None:
            raise ValueError(f"{name}: safetensors has no type for {array.dtype}")
        data = array.astype(_TYPES[kind], copy=False).tobytes()
        header[name] = {
            "dtype": kind,
            "shape": list(array.shape),
            "data_offsets": [offset, offset + len(data)],
        }
        chunks.append(data)
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(chunks)


def unpack(content: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of a safetensors file.

    Raises:
        ValueError: the content is no safetensors file, is cut short, or holds a type that is not read here.
    """
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > len(content) - 8:
        raise ValueError("the header is cut short")
    try:
        header = parse_json(content[8 : 8 + size])
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError("the header is not JSON") from error
    if not isinstance(header, dict):
        raise ValueError("the header is no table")
    metadata = header.pop("__metadata__", {})
    body = memoryview(content)[8 + size :]
    tensors = {}
    for name, entry in header.items():
        try:
            kind, shape = _TYPES[entry["dtype"]], tuple(int(n) for n in entry["shape"])
            begin, end = (int(n) for n in entry["data_offsets"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{name}: its entry in the header is wrong") from error
        data = body[begin:end]
        if begin < 0 or len(data) != end - begin:
            raise ValueError(f"{name}: the file is cut short")
        array = np.frombuffer(data, kind)
        if array.size != int(np.prod(shape, dtype=np.int64)):
            raise ValueError(f"{name}: {array.size} values for shape {shape}")
        tensors[name] = array.reshape(shape).copy()
    return tensors, {str(key): str(value) for key, value in metadata.items()}
