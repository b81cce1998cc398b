"""Wavefront OBJ: text of meshes, and files moved to another frame."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int


def coordinate_digits(vertices: Float[np.ndarray, "n 3"]) -> int:
    """Digits that coordinates are written with: 9, more far from the origin, where nine are coarser than 1e-7 of the
    extent."""
    if not len(vertices):
        return 9
    extent = float(np.ptp(vertices, axis=0).max())
    farthest = float(np.abs(vertices).max())
    if extent <= 0 or farthest <= 0:
        return 9
    return int(np.clip(np.ceil(np.log10(farthest / extent)) + 7, 9, 17))


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
