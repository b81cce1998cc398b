"""Meshes in other frames: OBJ and GLB files, textured or not, moved without touching their faces or textures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int

from recon.core.cameras import PinholeView
from recon.core.frames import offset_to_origin, translation, upright_rotation
from recon.io.glb import MODEL_FROM_SCENE, pack_glb, read_glb
from recon.surface.texture.files import coordinate_digits


def to_obj(
    vertices: Float[np.ndarray, "n 3"],
    triangles: Int[np.ndarray, "m 3"],
    normals: Float[np.ndarray, "n 3"] | None = None,
    colors: Float[np.ndarray, "n 3"] | None = None,
    comments: tuple[str, ...] = (),
) -> Iterator[str]:
    """The text of an OBJ, in pieces: nine digits or more for coordinates, colours (0…1) behind them.

    Open3D's writer rounds to six digits, which is centimetres in a scene of some kilometres.
    """
    yield "".join(f"# {comment}\n" for comment in comments)
    columns = [np.asarray(vertices, np.float64)]
    digits = coordinate_digits(columns[0])
    row = f"v %.{digits}g %.{digits}g %.{digits}g"
    if colors is not None:
        columns.append(np.clip(np.asarray(colors, np.float64), 0.0, 1.0))
        row += " %.4g %.4g %.4g"
    yield from _rows(row, np.concatenate(columns, axis=1))
    corner = "%d"
    if normals is not None:
        yield from _rows("vn %.5g %.5g %.5g", np.asarray(normals, np.float64))
        corner = "%d//%d"
    numbers = np.asarray(triangles, np.int64) + 1
    faces = numbers if normals is None else np.repeat(numbers, 2, axis=1)
    yield from _rows(f"f {corner} {corner} {corner}", faces)


def _rows(row: str, values: np.ndarray, chunk: int = 20_000) -> Iterator[str]:
    for start in range(0, len(values), chunk):
        part = values[start : start + chunk]
        yield (f"{row}\n" * len(part)) % tuple(part.ravel().tolist())


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


def move_glb(
    data: bytes,
    matrix: Float[np.ndarray, "4 4"],
    extras: dict[str, Any] | None = None,
    *,
    fresh: bool = False,
) -> bytes:
    """A GLB whose scenes hang below a node with this matrix; buffers stay as they are.

    Args:
        extras: facts to keep in the file (``asset.extras``), such as an offset.
        fresh: earlier facts go.

    Raises:
        ValueError: it is not a binary glTF 2.0 file.
    """
    document, rest = read_glb(data)
    nodes: list[dict[str, Any]] = document.setdefault("nodes", [])
    for scene in document.get("scenes", []):
        roots = scene.get("nodes", [])
        whole = np.asarray(matrix, np.float64)
        if len(roots) == 1 and not {"rotation", "scale"} & set(nodes[roots[0]]):
            # Two large translations that cancel would do so in a viewer's single precision.
            whole = whole @ _own_matrix(nodes[roots[0]])
        nodes.append({"name": "world", "matrix": whole.T.ravel().tolist(), "children": roots})
        scene["nodes"] = [len(nodes) - 1]
    if fresh:
        document["asset"].pop("extras", None)
    if extras:
        document["asset"].setdefault("extras", {}).update(extras)
    return pack_glb(document, rest)


def _own_matrix(node: dict[str, Any]) -> Float64[np.ndarray, "4 4"]:
    """Takes the matrix or the translation away from a node."""
    own = translation(np.array(node.pop("translation", (0.0, 0.0, 0.0))))
    if "matrix" in node:
        own = np.array(node.pop("matrix"), np.float64).reshape(4, 4).T
    return own


def upright_glb(data: bytes, views: Sequence[PinholeView]) -> bytes:
    """A GLB of a model, turned upright and brought near the origin by the matrix of a node.

    ``asset.extras`` has the way back (``model_from_scene``), and the offset that was taken away, if there is one.
    Photos that do not tell where up is leave the model as it lies.

    Args:
        views: the photos, in the model's frame.
    """
    offset = offset_to_origin(np.array([view.center for view in views]))
    matrix = np.eye(4)
    with contextlib.suppress(ValueError):
        matrix[:3, :3] = upright_rotation(np.array([view.cam_from_world[:, :3] for view in views]))
    matrix = matrix @ translation(-offset)
    extras: dict[str, Any] = {MODEL_FROM_SCENE: np.linalg.inv(matrix).tolist()}
    if offset.any():
        extras["offset"] = offset.tolist()
    return move_glb(data, matrix, extras)
