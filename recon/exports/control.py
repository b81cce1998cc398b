"""Control points: coordinates, accuracies, where photos show them; and the formats that programs write them in."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np

from recon.errors import UsageError
from recon.exports.geodesy import transverse_mercator_of, utm_from_geodetic, utm_zone

Sighting = tuple[str, float, float]
"""A photo and where in it a point was seen: pixels of the upright photo at its full size, (0, 0) the centre of
the top-left pixel."""

Triple = tuple[float, float, float]

_ACCURACY = ("sX", "sY", "sZ")

_UTM_OF_DEGREES = {4326: 32600, 4979: 32600, 4258: 25800, 4937: 25800}
"""EPSG codes of systems in degrees (WGS 84 and ETRS89), and what the codes of their UTM zones are counted from."""


@dataclass
class ControlPoints:
    """Contents of a file of control points.

    Attributes:
        world: coordinates of each point.
        sigma: their standard deviations, where the file says them.
        sightings: where photos show each point.
        checks: points that are to check and not to control.
        crs: as the file says it, "EPSG:CODE"; empty where it does not.
    """

    world: dict[str, Triple] = field(default_factory=dict)
    sigma: dict[str, Triple] = field(default_factory=dict)
    sightings: dict[str, list[Sighting]] = field(default_factory=dict)
    checks: set[str] = field(default_factory=set)
    crs: str = ""

    def add(self, other: ControlPoints) -> None:
        """Take over what another file says; its marks in a photo replace those that are there."""
        self.world |= other.world
        self.sigma |= other.sigma
        self.checks |= other.checks
        self.crs = self.crs or other.crs
        for name, seen in other.sightings.items():
            new = {photo for photo, _, _ in seen}
            kept = [one for one in self.sightings.get(name, []) if one[0] not in new]
            self.sightings[name] = kept + seen


def read_control(path: Path) -> tuple[dict[str, Triple], dict[str, list[Sighting]]]:
    """World coordinates and sightings of the points of a file (see ``read_control_points``)."""
    found = read_control_points(path)
    return found.world, found.sightings


def read_control_points(path: Path) -> ControlPoints:
    """Read control points.

    Formats, told apart by what is in them: a table whose first line names the columns (name, and photo, x, y for
    sightings, X, Y, Z for coordinates, sX, sY, sZ for accuracies, kind: control or check; any order, separated by
    commas, semicolons or tabs; a row has a sighting, coordinates or both); OpenDroneMap's gcp_list.txt (the
    projection, then X Y Z x y photo [name] a line); Metashape's reference table (#Label, X, Y, Z, accuracies) and its
    markers as XML.

    Raises:
        UsageError: it cannot be read, lacks a column, or contradicts itself; names the line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from error
    if text.lstrip().startswith("<"):
        return _metashape_xml(path, text)
    if re.search(_LABELS, text, re.MULTILINE):
        return _metashape_table(path, text)
    rows = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    rows = [(number, line) for number, line in rows if not line.lstrip().startswith("#")]
    if not rows:
        raise UsageError(f"{path}: is empty")
    if _names_crs(rows[0][1]):
        return _odm(path, rows)
    return _table(path, rows)


def write_sightings(path: Path, sightings: dict[str, list[Sighting]]) -> None:
    """Write sightings as the table that ``read_control_points`` takes."""
    with Path(path).open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(["name", "photo", "x", "y"])
        for name in sorted(sightings):
            for photo, x, y in sorted(sightings[name]):
                rows.writerow([name, photo, f"{x:.3f}", f"{y:.3f}"])


# Tables


def _table(path: Path, lines: list[tuple[int, str]]) -> ControlPoints:
    separator = max(",;\t", key=lines[0][1].count)
    rows = csv.reader([line for _, line in lines], delimiter=separator)
    header = [cell.strip() for cell in next(rows)]
    missing = {"name"} - set(header)
    has_world, has_sightings = {"X", "Y", "Z"} <= set(header), {"photo", "x", "y"} <= set(header)
    if missing or not (has_world or has_sightings):
        raise UsageError(
            f"{path}: its first line has to name the columns (name, X, Y, Z, photo, x, y), or the projection of "
            f"OpenDroneMap's list (EPSG:CODE); it has {', '.join(header)}"
        )
    found = ControlPoints()
    for (number, _), row in zip(lines[1:], rows, strict=False):
        cells = dict(zip(header, (cell.strip() for cell in row), strict=False))
        where = f"{path}: row {number}"
        if not cells.get("name"):
            raise UsageError(f"{where}: has no name")
        name = cells["name"]
        if has_world and all(cells.get(axis) for axis in "XYZ"):
            _place(found, name, _triple(cells, "XYZ", where), where)
        if all(cells.get(axis) for axis in _ACCURACY):
            found.sigma[name] = _positive(_triple(cells, _ACCURACY, where), where)
        if cells.get("kind", "").lower() == "check":
            found.checks.add(name)
        if has_sightings and cells.get("photo"):
            seen = (cells["photo"], _float(cells.get("x", ""), where), _float(cells.get("y", ""), where))
            found.sightings.setdefault(name, []).append(seen)
    return found


def _place(found: ControlPoints, name: str, place: Triple, where: str) -> None:
    if found.world.setdefault(name, place) != place:
        raise UsageError(f"{where}: {name} has other coordinates than above")


def _triple(cells: dict[str, str], names: tuple[str, ...] | str, where: str) -> Triple:
    x, y, z = (_float(cells[name], where) for name in names)
    return x, y, z


def _positive(sigma: Triple, where: str) -> Triple:
    if min(sigma) <= 0:
        raise UsageError(f"{where}: an accuracy has to be larger than 0")
    return sigma


def _float(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{where}: {text!r} is not a number")
    return value


# OpenDroneMap


def _names_crs(line: str) -> bool:
    return bool(re.match(r"\s*(EPSG:\d+|WGS\s*84|\+proj|\+init)", line, re.IGNORECASE))


def crs_in_words(text: str) -> str:
    """The EPSG code that a projection's text means: EPSG:CODE, WKT, "WGS84 UTM 32N", or PROJ's "+proj=utm +zone=32";
    empty where it means none that is known here."""
    code = re.search(r"EPSG:+(\d+)", text, re.IGNORECASE)
    if code:
        return f"EPSG:{code.group(1)}"
    said = _code_of_wkt(text)
    if said:
        return f"EPSG:{said}"
    if re.search(r"\+proj=(longlat|latlong)\b|WGS\s*84\s+long", text, re.IGNORECASE):
        return "EPSG:4326"
    zone = re.search(r"UTM\s*(?:zone\s*)?(\d{1,2})\s*([NS])", text, re.IGNORECASE)
    proj = re.search(r"\+proj=utm\b.*?\+zone=(\d{1,2})", text)
    if zone or proj:
        number = int((zone or proj).group(1))  # type: ignore[union-attr]
        south = zone.group(2).upper() == "S" if zone else "+south" in text
        if 28 <= number <= 38 and re.search(r"ETRS\W?(19)?89", text):
            return f"EPSG:{25800 + number}"
        if 1 <= number <= 60:
            return f"EPSG:{(32700 if south else 32600) + number}"
    return ""


def _code_of_wkt(text: str) -> str:
    """The EPSG code of a WKT's horizontal system; those of what it is made of are nested deeper."""
    start = re.search(r"(?:PROJ|GEOG|GEOD)(?:CS|CRS)\[", text)
    depth = 0
    code_or_bracket = r'(?:AUTHORITY|ID)\["EPSG",\s*"?(\d+)"?\s*\]|"[^"]*"|[\[\]]'
    for token in re.finditer(code_or_bracket, text[start.start() :] if start else ""):
        if token.group(1) and depth == 1:
            return token.group(1)
        depth += {"[": 1, "]": -1}.get(token.group(), 0)
        if depth == 0:
            break
    return ""


def in_metres(
    points: ControlPoints, wanted: str, gps: Sequence[tuple[float, float, float]]
) -> tuple[dict[str, Triple], str]:
    """Coordinates in a projected system and its name; degrees become metres of their UTM zone.

    Args:
        wanted: "auto", "local" or EPSG:CODE; a code of degrees says that the file has those.
        gps: latitude, longitude, height of photos.

    Raises:
        UsageError: they are no degrees, swapped, or what they are to become cannot be computed.
    """
    source, target = _code(points.crs), _code(wanted)
    if target in _UTM_OF_DEGREES:
        source, target = target, None
    if source not in _UTM_OF_DEGREES or not points.world:
        return points.world, wanted if wanted != "auto" or not points.crs else points.crs
    at = np.array(list(points.world.values()), np.float64)[:, [1, 0, 2]]
    middle = np.median(at[:, :2], axis=0)
    there = np.median(np.array(gps, np.float64)[:, :2], axis=0) if len(gps) else middle
    if np.abs(there - middle).max() > 0.5 > np.abs(there - middle[::-1]).max():
        raise UsageError("X and Y are swapped, by the photos' GPS: X is the longitude, Y the latitude")
    if np.abs(at[:, 0]).max() > 90 or np.abs(at[:, 1]).max() > 180:
        raise UsageError(f"EPSG:{source} is in degrees, X the longitude and Y the latitude; these are none")
    if target is None:
        target = _UTM_OF_DEGREES[source] + utm_zone(float(middle[1]))
        target += 100 if middle[0] < 0 and target > 32600 else 0
    zone = transverse_mercator_of(target)
    if zone is not None:
        moved = utm_from_geodetic(at, *zone)
    else:
        try:
            from rasterio.warp import transform
        except ImportError as error:
            raise UsageError(
                f"EPSG:{target} from degrees needs rasterio: pip install 'recon-photogrammetry[maps]'"
            ) from error
        x, y = transform(f"EPSG:{source}", f"EPSG:{target}", at[:, 1].tolist(), at[:, 0].tolist())
        moved = np.column_stack([x, y, at[:, 2]])
    places = [(float(x), float(y), float(z)) for x, y, z in moved]
    return dict(zip(points.world, places, strict=True)), f"EPSG:{target}"


def _code(crs: str) -> int | None:
    kind, _, code = crs.partition(":")
    return int(code) if kind.upper() == "EPSG" and code.isdigit() else None


def _odm(path: Path, lines: list[tuple[int, str]]) -> ControlPoints:
    """OpenDroneMap's list: pixels count from the centre of the top-left one, as OpenSfM has them."""
    found = ControlPoints(crs=crs_in_words(lines[0][1]))
    names: dict[Triple, str] = {}
    for number, line in lines[1:]:
        where = f"{path}: row {number}"
        cells = line.split("\t") if line.count("\t") >= 5 else line.split()
        if len(cells) < 6:
            raise UsageError(f"{where}: needs X Y Z x y photo, and may have a name")
        x, y, z, px, py = (_float(cell.strip(), where) for cell in cells[:5])
        place = (x, y, z)
        given = cells[6].strip() if len(cells) > 6 else ""
        name = given or names.setdefault(place, f"gcp{len(names) + 1}")
        _place(found, name, place, where)
        found.sightings.setdefault(name, []).append((unquote(cells[5].strip()), px, py))
    if not found.world:
        raise UsageError(f"{path}: has no points after the projection")
    return found


# Metashape

_LABELS = r"(?i)^#?\s*label\s*[,;\t]"
"""How the line that names the columns begins."""


def _metashape_table(path: Path, text: str) -> ControlPoints:
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if re.match(_LABELS, line))
    separator = max(",;\t", key=lines[at].count)
    header = [cell.strip().lstrip("#").strip().lower() for cell in lines[at].split(separator)]

    def column(*names: str) -> int | None:
        return next((i for i, cell in enumerate(header) if re.match("|".join(names), cell)), None)

    places = [column(f"{axis}(/.*)?$") for axis in "xyz"]
    sigma = [
        column(f"{axis}_accuracy", f"accuracy_[xyz/]*{axis}(?![a-z])", r"accuracy(_\(m\))?$", f"s{axis}$")
        for axis in "xyz"
    ]
    flag = column("enable")
    if None in places:
        raise UsageError(f"{path}: the line '#Label, X/..., Y/..., Z/...' has to name the coordinates")
    found = ControlPoints(crs=crs_in_words("\n".join(lines[:at])))
    for number, row in enumerate(csv.reader(lines[at + 1 :], delimiter=separator), at + 2):
        if not row or not row[0].strip() or row[0].lstrip().startswith("#"):
            continue
        where = f"{path}: row {number}"
        cells = [cell.strip() for cell in row] + [""] * len(header)
        name = cells[0]
        if all(cells[i] for i in places if i is not None):
            x, y, z = (_float(cells[i], where) for i in places if i is not None)
            _place(found, name, (x, y, z), where)
        if None not in sigma and all(cells[i] for i in sigma if i is not None):
            # One column may hold them all: 0.01, or 0.01/0.01/0.02.
            many = [(cells[i].split("/"), sigma[:k].count(i)) for k, i in enumerate(sigma) if i is not None]
            a, b, c = (_float(parts[min(k, len(parts) - 1)], where) for parts, k in many)
            found.sigma[name] = _positive((a, b, c), where)
        if flag is not None and cells[flag] in ("0", "false", "False"):
            found.checks.add(name)
    return found


def _metashape_xml(path: Path, text: str) -> ControlPoints:
    """Metashape's markers: its pixels count from the corner of the photo; a marker that is not enabled is a check."""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise UsageError(f"{path}: is no XML that can be read ({error})") from error
    photos = {one.get("id"): one.get("label", "") for one in root.iter("camera") if one.get("label")}
    found = ControlPoints()
    labels: dict[str | None, str] = {}
    for marker in root.iter("marker"):
        name = marker.get("label")
        if name is None:
            continue
        labels[marker.get("id")] = name
        reference = marker.find("reference")
        if reference is None or reference.get("x") is None:
            continue
        where = f"{path}: marker {name}"
        x, y, z = (_float(reference.get(axis, ""), where) for axis in "xyz")
        found.world[name] = (x, y, z)
        sigma = [reference.get(f"s{axis}") or reference.get("sxyz") for axis in "xyz"]
        if all(sigma):
            a, b, c = (_float(str(one), where) for one in sigma)
            found.sigma[name] = _positive((a, b, c), where)
        if reference.get("enabled") in ("false", "0"):
            found.checks.add(name)
    for name, location in _locations(root, labels):
        photo = photos.get(location.get("camera_id"), "")
        if photo:
            where = f"{path}: marker {name}"
            x, y = (_float(location.get(axis, ""), where) - 0.5 for axis in "xy")
            found.sightings.setdefault(name, []).append((photo, x, y))
    if not found.world and not found.sightings:
        raise UsageError(f"{path}: holds no markers")
    for reference in root.iter("reference"):
        found.crs = found.crs or crs_in_words(reference.text or "")
    return found


def _locations(
    root: ElementTree.Element, labels: dict[str | None, str]
) -> Iterator[tuple[str, ElementTree.Element]]:
    """Pinned places of the markers in photos."""
    for marker in root.iter("marker"):
        name = labels.get(marker.get("marker_id"))
        if name is not None:
            yield from (
                (name, one) for one in marker.iter("location") if one.get("pinned") not in ("false", "0")
            )
