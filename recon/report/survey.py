"""The part of the report on the georeference: control and check points, and how precisely cameras are known."""

from __future__ import annotations

import re
from html import escape

import numpy as np

from recon.errors import ReconError
from recon.exports.georeference import Georeference
from recon.exports.precision import PointPrecision, read_precision
from recon.exports.source import read_georeference
from recon.io.files import atomic_path
from recon.run.folder import GEOREFERENCE, PRECISION, REPORT, RunFolder

_PART = re.compile(r"<!-- survey -->.*?<!-- /survey -->", re.DOTALL)
_MOST_CAMERAS = 2000


def survey_of(run: RunFolder) -> str:
    """The part for a run, as HTML; empty without a georeference."""
    if not run.path(GEOREFERENCE).is_file():
        return ""
    return survey_html(read_georeference(run), read_precision(run.path(PRECISION)))


def update_report(run: RunFolder) -> bool:
    """Put the part of the georeference into the run's report; False where there is none to put it into.

    Raises:
        ReconError: the report cannot be written.
    """
    path = run.path(REPORT)
    if not path.is_file():
        return False
    page = path.read_text(encoding="utf-8")
    part = f"<!-- survey -->{survey_of(run)}<!-- /survey -->"
    after, count = _PART.subn(lambda _: part, page, count=1)
    if not count:
        return False
    try:
        with atomic_path(path) as partial:
            partial.write_text(after, encoding="utf-8")
    except OSError as error:
        raise ReconError(f"{path}: cannot be written ({error.strerror})") from error
    return True


def survey_html(georeference: Georeference, precision: PointPrecision | None) -> str:
    """Frame, points with their residuals against what is stated, and cameras with their deviations."""
    crs, unit = georeference.crs, "m" if georeference.method != "level" else "units"
    name = crs.name if crs.epsg is None or str(crs.epsg) in crs.name else f"{crs.name} (EPSG:{crs.epsg})"
    out = ['<section id="survey" aria-labelledby="h-survey"><h2 id="h-survey">Georeference</h2><dl>']
    facts = [("Frame", name), ("From", georeference.method), ("Up from", georeference.gravity)]
    facts.append(("One unit of the run", f"{georeference.similarity.scale:.6g} {unit}"))
    if georeference.bend is not None:
        moved = georeference.bend.largest * georeference.similarity.scale
        facts.append(("Adjusted", f"beside scale and place, points moved by up to {moved:.3g} {unit}"))
    out += [f"<dt>{escape(label)}</dt><dd>{escape(value)}</dd>" for label, value in facts]
    out.append("</dl>")
    if georeference.points:
        out.append(_points(georeference))
    if precision is not None:
        out.append(_cameras(georeference, precision))
    return "".join([*out, "</section>"])


def _table(label: str, head: list[str], rows: list[list[str]]) -> str:
    cells = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}"><table><thead><tr>{cells}</tr>'
        f"</thead><tbody>{body}</tbody></table></div>"
    )


def _points(georeference: Georeference) -> str:
    rows = []
    for one in georeference.points:
        errors = [f"{1000 * e:+.1f} ± {1000 * s:.1f}" for e, s in zip(one.error, one.sigma, strict=True)]
        said = f"{', '.join(one.beyond)} beyond twice what is stated" if one.beyond else "as stated"
        if one.kind == "wrong":
            said = "left out: contradicts the others"
        rows.append([one.name, one.kind, *errors, f"{one.pixels:.2f}", str(one.photos), said])
    head = ["Point", "Kind", "x / mm", "y / mm", "z / mm", "Marks / px", "Photos", ""]
    note = (
        "Measured minus found, with the standard deviation that is stated of it. A check point took no part: its error "
        "is that of the map. A control point pulls the map to itself. If what is stated is right, 5 in 100 coordinates "
        "are off by more than twice of it."
    )
    return f'<h3>Points</h3>{_table("Control and check points", head, rows)}<p class="note">{note}</p>'


def _cameras(georeference: Georeference, precision: PointPrecision) -> str:
    places = precision.precision.model.centre + np.array(georeference.offset)
    sigma = np.sqrt(np.einsum("nii->ni", precision.precision.centres()))
    level, height = np.hypot(sigma[:, 0], sigma[:, 1]), sigma[:, 2]
    said = (
        f"Cameras are known to {1000 * np.median(level):.3g} mm level and {1000 * np.median(height):.3g} mm in height, "
        f"in the median; the worst to {1000 * level.max():.3g} and {1000 * height.max():.3g} mm."
    )
    rows = [
        [name, *(f"{p:.3f} ± {s:.3f}" for p, s in zip(place, deviation, strict=True))]
        for name, place, deviation in zip(precision.names, places, sigma, strict=True)
    ][:_MOST_CAMERAS]
    table = _table("Positions of the cameras", ["Photo", "x / m", "y / m", "z / m"], rows)
    return f"<p>{said}</p><details><summary>Positions of the cameras</summary>{table}</details>"
