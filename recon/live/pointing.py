"""Clicks into the scene: what was hit, what the photos say of it, and marks that show it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import viser
from jaxtyping import Float64, UInt8

from recon.core.mesh import PointCloud
from recon.live.clipping import ClipBox
from recon.live.dense import ClientCloud
from recon.live.marking import Proposal
from recon.live.measuring import Measured, Measuring
from recon.live.picking import (
    PICK_RADIUS,
    PhotoShelf,
    Sighting,
    Surfaces,
    nearest_on_ray,
    pick_in_blocks,
    sheet,
)
from recon.live.text import plain
from recon.render.scene import ViewScene

_MARK = (255, 64, 129)
_LINE = (64, 224, 255)


@dataclass(frozen=True)
class Shown:
    """The layers that are drawn."""

    frusta: bool
    photos: bool
    sparse: bool
    dense: bool
    mesh: bool


@dataclass(frozen=True)
class Picked:
    """The target of a click.

    Attributes:
        kind: "sparse point", "dense point" or "mesh". point: in the scene. depth: along the click's ray.
        row: of the point in its layer, -1 for the mesh. normal: of the surface, None where unknown.
        cloud: that holds the row of a dense point.
    """

    kind: str
    point: Float64[np.ndarray, "3"]
    depth: float
    row: int = -1
    normal: Float64[np.ndarray, "3"] | None = None
    cloud: PointCloud | None = None


def pick(
    surfaces: Surfaces,
    sparse: PointCloud | None,
    dense: ClientCloud | None,
    show: Shown,
    clip: ClipBox | None,
    origin: Float64[np.ndarray, "3"],
    direction: Float64[np.ndarray, "3"],
    fov: float,
) -> Picked | None:
    """Find the nearest of what is drawn and inside the clipping box under a ray; None for the empty space.

    Args:
        surfaces: with the mesh. sparse: points. dense: points that the browser draws.
        direction: unit vector. fov: vertical, of the browser's camera.
    """
    radius = PICK_RADIUS * 2 * float(np.tan(fov / 2))
    found: list[Picked] = []
    if show.dense and dense is not None:
        hit = pick_in_blocks(dense.blocks, dense.shown, origin, direction, radius, clip)
        if hit is not None:
            cloud = dense.blocks.cloud
            normal = None if cloud.normals is None else cloud.normals[hit[0]].astype(np.float64)
            point = cloud.xyz[hit[0]].astype(np.float64)
            found.append(Picked("dense point", point, hit[1], hit[0], normal, cloud))
    if show.sparse and sparse is not None:
        xyz = sparse.xyz
        rows = np.arange(len(xyz)) if clip is None else np.flatnonzero(clip.inside(xyz))
        near = nearest_on_ray(xyz[rows], origin, direction, radius)
        if near is not None:
            row = int(rows[near[0]])
            # Sparse points lie in the dense ones: whoever sees one wants that one.
            found.append(Picked("sparse point", xyz[row].astype(np.float64), 0.98 * near[1], row))
    if show.mesh:
        through = surfaces.hit(origin, direction)
        if through is not None and (clip is None or clip.inside(through[0][None])[0]):
            point, normal, depth = through
            found.append(Picked("mesh", point, depth, normal=normal if normal @ direction < 0 else -normal))
    return min(found, key=lambda one: one.depth, default=None)


def inspect(
    scene: ViewScene,
    surfaces: Surfaces,
    shelf: PhotoShelf,
    found: Picked,
    measuring: Measuring | None = None,
) -> tuple[UInt8[np.ndarray, "h w 3"] | None, str, str]:
    """Cut out what the photos show of a point; also what is known of it, and the pixels, both as Markdown."""
    head, facts = f"**{found.kind}** at {plain(coordinates(scene, found.point))}", []
    if measuring is not None:
        at = measuring.take(surfaces, found.point, found.normal)
        head += f" {measuring.coordinates(at, unit_of(scene))}".rstrip()
    if found.kind == "sparse point":
        shown = surfaces.sightings_of_track(found.row)
        errors = [one.error for one in shown if one.error is not None]
        facts.append(f"made by {len(shown)} photos")
        if errors:
            facts.append(f"reprojection error {np.mean(errors):.2f} px")
        shown = shown[:12]
    else:
        shown = surfaces.sightings(found.point, found.normal)
        facts += _facts(scene, found)
        facts.append(f"seen by {len(shown)} photos" if shown else "seen by no photo")
    pieces = [(one, shelf.crop(one)) for one in shown]
    pieces.sort(key=lambda piece: piece[1] is None)  # those with a picture first, numbered as on the sheet
    crops = [crop for _, crop in pieces if crop is not None]
    table = ""
    if pieces:
        rows = "\n".join(f"| {i} | {_row(scene, one)} |" for i, (one, _) in enumerate(pieces, 1))
        table = f"| | photo | x | y | error |\n|-|-|-|-|-|\n{rows}"
    return (sheet(crops) if crops else None), f"{head}\n\n{', '.join(facts)}", table


def coordinates(scene: ViewScene, point: Float64[np.ndarray, "3"]) -> str:
    """Write the coordinates of a point: in the model's frame, and in that of the georeference if there is one."""
    world = point + scene.offset
    text = ", ".join(f"{value:.4f}" for value in world)
    if scene.georeference is not None:
        place = ", ".join(f"{value:.3f}" for value in scene.georeference.to_crs(world[None])[0])
        text += f" (model), {place} ({scene.georeference.crs.name})"
    return text


def unit_of(scene: ViewScene) -> str:
    """Unit of lengths: that of the frame of the georeference, else that of the model."""
    known = scene.georeference is not None and scene.georeference.method != "level"
    return "m" if known else "units"


class Marks:
    """The point that was clicked, the measured line and the clipping box, drawn over the scene."""

    def __init__(self, server: viser.ViserServer, size: float) -> None:
        self._server, self._size = server, size
        self._first: Measured | None = None

    def point(self, place: Float64[np.ndarray, "3"] | None, name: str = "/marks/point") -> None:
        """Mark a point; none takes the mark away."""
        if place is None:
            self._server.scene.remove_by_name(name)
            return
        self._server.scene.add_icosphere(
            name,
            radius=0.0035 * self._size,
            color=_MARK,
            position=place,
            cast_shadow=False,
            receive_shadow=False,
        )

    def measure(self, at: Measured, measuring: Measuring, unit: str) -> str:
        """Take one end of a measurement; with the second the line and its length are drawn. Says what there is."""
        if self._first is None:
            self.clear_measure()
            self._first = at
            self.point(at.point, "/marks/a")
            return "First point taken: click the second."
        first, self._first = self._first, None
        self.point(at.point, "/marks/b")
        text = measuring.length(first, at, unit)
        ends = np.array([[first.point, at.point]])
        self._server.scene.add_line_segments(
            "/marks/line", ends, colors=_LINE, thickness=2.5, thickness_units="screen"
        )
        self._server.scene.add_label(
            "/marks/length", text, position=ends[0].mean(axis=0), anchor="bottom-center"
        )
        across = at.local - first.local
        return f"**{text}** (x {across[0]:.4g}, y {across[1]:.4g}, z {across[2]:.4g})"

    def clear_measure(self) -> None:
        """Take the measurement away."""
        self._first = None
        for name in ("a", "b", "line", "length"):
            self._server.scene.remove_by_name(f"/marks/{name}")

    def box(self, box: ClipBox | None) -> None:
        """Draw the clipping box, or take it away."""
        if box is None:
            self._server.scene.remove_by_name("/marks/box")
            return
        self._server.scene.add_line_segments(
            "/marks/box",
            box.edges().astype(np.float32),
            colors=(150, 150, 150),
            thickness=1.2,
            thickness_units="screen",
        )


def marks_in_words(scene: ViewScene, name: str, found: list[Proposal]) -> str:
    """Marks and proposals of a control point as Markdown."""
    marked = sum(one.marked for one in found)
    head = f"**{plain(name)}**: marked in {marked} photos, proposed in {len(found) - marked}"
    if not found:
        return f"{head}. Look through a photo and click where it shows the point."
    rows = []
    for number, one in enumerate(found, 1):
        error = "" if one.error is None else f"{one.error:.2f}"
        state = "marked" if one.marked else "proposed"
        x, y = one.xy
        photo = plain(scene.photos[one.photo].name)
        rows.append(f"| {number} | {photo} | {x:.1f} | {y:.1f} | {state} | {error} |")
    return f"{head}\n\n| | photo | x | y | | error |\n|-|-|-|-|-|-|\n" + "\n".join(rows)


def _facts(scene: ViewScene, found: Picked) -> list[str]:
    cloud, row = found.cloud, found.row
    if cloud is None:
        return []
    facts = []
    if cloud.view_count is not None:
        facts.append(f"{int(cloud.view_count[row])} views agree")
    if cloud.confidence is not None:
        facts.append(f"confidence {float(cloud.confidence[row]):.2f}")
    if cloud.reference_view is not None:
        number = int(cloud.reference_view[row])
        facts += [f"made from {plain(one.name)}" for one in scene.photos if one.view.photo_id == number]
    return facts


def _row(scene: ViewScene, one: Sighting) -> str:
    error = "" if one.error is None else f"{one.error:.2f}"
    return f"{plain(scene.photos[one.photo].name)} | {one.xy[0]:.1f} | {one.xy[1]:.1f} | {error}"
