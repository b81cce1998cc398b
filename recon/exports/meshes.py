"""Meshes in other frames: OBJ and GLB files, textured or not, moved without touching their faces or textures."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

Y_UP_FROM_Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""glTF 2.0, section 3.4: y is up, z is forward."""

_JSON_CHUNK, _BINARY_CHUNK = 0x4E4F534A, 0x004E4942


def similarity_matrix(
    scale: float, rotation: Float[np.ndarray, "3 3"], translation: Float[np.ndarray, "3"]
) -> Float64[np.ndarray, "4 4"]:
    """The homogeneous matrix of x' = scale * rotation @ x + translation."""
    out = np.eye(4)
    out[:3, :3] = scale * np.asarray(rotation, np.float64)
    out[:3, 3] = translation
    return out


def move_obj(text: str, matrix: Float[np.ndarray, "4 4"], comments: tuple[str, ...] = ()) -> str:
    """An OBJ with its vertices and normals moved by a similarity; all other lines (colours too) stay.

    Raises:
        ValueError: a vertex has no three coordinates.
    """
    linear, shift = matrix[:3, :3], matrix[:3, 3]
    rotation = linear / np.cbrt(np.linalg.det(linear))
    out = [f"# {comment}" for comment in comments]
    for line in text.splitlines():
        if line.startswith(("v ", "vn ")):
            kind, *words = line.split()
            x = np.array([float(word) for word in words[:3]])
            moved = linear @ x + shift if kind == "v" else rotation @ x
            line = " ".join([kind, *(f"{value:.9g}" for value in moved), *words[3:]])
        out.append(line)
    return "\n".join(out) + "\n"


def move_glb(data: bytes, matrix: Float[np.ndarray, "4 4"], extras: dict[str, Any] | None = None) -> bytes:
    """A GLB whose scenes hang below a node with this matrix; buffers stay as they are.

    Args:
        extras: facts to keep in the file (``asset.extras``), such as an offset.

    Raises:
        ValueError: it is not a binary glTF 2.0 file.
    """
    document, rest = read_glb(data)
    nodes: list[dict[str, Any]] = document.setdefault("nodes", [])
    for scene in document.get("scenes", []):
        nodes.append(
            {
                "name": "world",
                "matrix": np.asarray(matrix, np.float64).T.ravel().tolist(),  # column by column
                "children": scene.get("nodes", []),
            }
        )
        scene["nodes"] = [len(nodes) - 1]
    if extras:
        document["asset"].setdefault("extras", {}).update(extras)
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), _JSON_CHUNK) + text + rest
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def read_glb(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The document of a GLB and its remaining chunks as they are.

    Raises:
        ValueError: it is not a binary glTF 2.0 file.
    """
    if len(data) < 20 or data[:4] != b"glTF" or struct.unpack_from("<I", data, 4)[0] != 2:
        raise ValueError("not a binary glTF 2.0 file")
    length, kind = struct.unpack_from("<II", data, 12)
    if kind != _JSON_CHUNK:
        raise ValueError("a GLB that does not begin with its JSON")
    document = json.loads(data[20 : 20 + length])
    return document, data[20 + length :]
