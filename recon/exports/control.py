"""Control points: coordinates, and where they were marked in photos."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from recon.errors import UsageError

Sighting = tuple[str, float, float]
"""A photo and where in it a point was seen: pixels of the upright photo at its full size, (0, 0) the centre of
the top-left pixel."""


def read_control(path: Path) -> tuple[dict[str, tuple[float, float, float]], dict[str, list[Sighting]]]:
    """World coordinates and sightings of the points of a CSV file.

    The first line names the columns: name, and photo, x, y for sightings, and X, Y, Z for coordinates; any
    order, separated by commas, semicolons or tabs. A row has a sighting, coordinates or both; coordinates of a
    point may be repeated.

    Raises:
        UsageError: it cannot be read, lacks a column, or contradicts itself; names the line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from error
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise UsageError(f"{path}: is empty")
    separator = max(",;\t", key=lines[0].count)
    rows = csv.reader(lines, delimiter=separator)
    header = [cell.strip() for cell in next(rows)]
    missing = {"name"} - set(header)
    has_world, has_sightings = {"X", "Y", "Z"} <= set(header), {"photo", "x", "y"} <= set(header)
    if missing or not (has_world or has_sightings):
        raise UsageError(
            f"{path}: its first line has to name the columns: name, X, Y, Z, photo, x, y (it has {', '.join(header)})"
        )
    world: dict[str, tuple[float, float, float]] = {}
    sightings: dict[str, list[Sighting]] = {}
    for number, row in enumerate(rows, 2):
        cells = dict(zip(header, (cell.strip() for cell in row), strict=False))
        where = f"{path}: row {number}"
        if not cells.get("name"):
            raise UsageError(f"{where}: has no name")
        name = cells["name"]
        if has_world and all(cells.get(axis) for axis in "XYZ"):
            place = (
                _float(cells["X"], where),
                _float(cells["Y"], where),
                _float(cells["Z"], where),
            )
            if world.setdefault(name, place) != place:
                raise UsageError(f"{where}: {name} has other coordinates than above")
        if has_sightings and cells.get("photo"):
            seen = (cells["photo"], _float(cells.get("x", ""), where), _float(cells.get("y", ""), where))
            sightings.setdefault(name, []).append(seen)
    return world, sightings


def _float(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{where}: {text!r} is not a number")
    return value
