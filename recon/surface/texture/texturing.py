"""From a mesh and its photos to a textured mesh."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64, UInt8

from recon.core.cameras import PinholeView
from recon.core.memory import Scratch
from recon.core.sampling import sample_image
from recon.surface.texture.bake import FaceBlend, bake, blend_of_faces, fill_gaps, paint_faces
from recon.surface.texture.charts import Layout, lay_out
from recon.surface.texture.color import (
    Agreement,
    blend_weights,
    diffuse_colors,
    find_agreement,
    fit_gains,
    solve_corrections,
)
from recon.surface.texture.topology import Adjacency, face_adjacency
from recon.surface.texture.types import TexturedMesh, TextureOptions, TextureReport
from recon.surface.texture.view_selection import choose_views, drop_small_regions, face_costs, seam_lengths
from recon.surface.texture.visibility import (
    Candidates,
    FacesInViews,
    SeenFaces,
    best_candidates,
    look_up,
)

# Seams are looked up in so many bands of the texture, one after the other.
_SEAM_BANDS = 16


class _Clock:
    """Wall time by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 2)
        self._last = now


def texture_mesh(
    vertices: Float64[np.ndarray, "n 3"],
    faces: Int32[np.ndarray, "m 3"],
    views: Sequence[PinholeView],
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    masks: Sequence[Bool[np.ndarray, "_ _"] | None] | None = None,
    options: TextureOptions | None = None,
    vertex_colors: UInt8[np.ndarray, "n 3"] | None = None,
    seen: Iterable[SeenFaces] | None = None,
    scratch: Scratch | None = None,
) -> tuple[TexturedMesh, TextureReport]:
    """Texture a mesh from posed photos.

    Views that see each face (visibility, angle, resolution) → exposure per photo → views that contradict the
    others go → the best view per face with short seams → charts → colours levelled over the seams → texels. The
    frame is that of Waechter, Moehrle & Goesele, "Let there be color!", ECCV 2014; what differs is said at each part.

    Args:
        vertices, faces: a mesh with its faces counter-clockwise seen from outside.
        views, images: undistorted photos and their cameras.
        masks: True where a photo may be used.
        vertex_colors: used in parts of the mesh that no photo sees at all.
        seen: what each view sees (``FacesInViews`` of ``near_origin``); None looks for it here.
        scratch: where the texture lies; None for memory.

    Returns:
        The textured mesh and figures about it.

    Raises:
        ValueError: no faces, no views, or sizes that do not fit together.
    """
    options = options or TextureOptions()
    _check(vertices, faces, views, images, masks)
    clock = _Clock()
    local, near = near_origin(vertices, views)
    adjacency = face_adjacency(faces)
    clock.lap("adjacency")
    if seen is None:
        seen = _seen(FacesInViews(local, faces, options.max_angle), near, images, masks)
    candidates = best_candidates(len(faces), len(views), seen, options.candidates)
    clock.lap("visibility")
    gains = fit_gains(candidates, len(views)) if options.balance else np.ones((len(views), 3))
    agreement = find_agreement(candidates, gains, adjacency, reject_levels=options.reject_levels)
    clock.lap("consistency")
    labels = _best_views(local, faces, candidates, agreement, adjacency, options.seam_cost)
    clock.lap("best views")
    pixels = _corner_pixels(local, faces, labels, near)
    layout = lay_out(
        pixels,
        labels,
        adjacency,
        max_texture=options.max_texture,
        max_textures=options.max_textures,
        padding=options.padding,
    )
    clock.lap("atlas")
    blend = _levelled(faces, len(vertices), labels, candidates, agreement, gains, options)
    clock.lap("levelling")
    colors = _surrounding_colors(faces, labels, agreement.color, vertex_colors, len(vertices))
    texture, fill = _all_tiles(
        layout,
        labels,
        faces,
        colors,
        lambda tile, mine: bake(local, faces, tile, blend, near, images, gains, mine),
        scratch or Scratch(),
    )
    clock.lap("texels")
    vertices, faces = np.asarray(vertices, np.float64), np.asarray(faces, np.int32)
    mesh = TexturedMesh(vertices, faces, layout.uvs, texture, labels, layout.chart, layout.tiles)
    before, after = _seam_medians(mesh, adjacency, local, near, images, scratch or Scratch())
    clock.lap("figures")
    return mesh, TextureReport(
        charts=layout.charts,
        seen_share=float((labels >= 0).mean()),
        rejected_share=_rejected_share(candidates, agreement),
        fill=fill,
        scale=layout.scale,
        gains=tuple((float(r), float(g), float(b)) for r, g, b in gains),
        seam_before=before,
        seam_after=after,
        seconds=clock.seconds,
    )


def _seen(
    mesh: FacesInViews,
    views: Sequence[PinholeView],
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    masks: Sequence[Bool[np.ndarray, "_ _"] | None] | None,
) -> Iterator[SeenFaces]:
    for one in zip(views, images, [None] * len(views) if masks is None else masks, strict=True):
        yield mesh.seen(*one)


def _best_views(
    vertices: Float64[np.ndarray, "n 3"],
    faces: Int32[np.ndarray, "m 3"],
    candidates: Candidates,
    agreement: Agreement,
    adjacency: Adjacency,
    seam_cost: float,
) -> Int32[np.ndarray, " m"]:
    """The view of each face: sharp, in agreement with the others, with short seams and no small islands."""
    cost = face_costs(candidates, agreement)
    seam = seam_cost * seam_lengths(vertices, faces, candidates)
    labels = choose_views(cost, candidates.view, adjacency, seam)
    return drop_small_regions(labels, cost, candidates, adjacency, seam)


def _levelled(
    faces: Int32[np.ndarray, "m 3"],
    vertices: int,
    labels: Int32[np.ndarray, " m"],
    candidates: Candidates,
    agreement: Agreement,
    gains: Float64[np.ndarray, "v 3"],
    options: TextureOptions,
) -> FaceBlend:
    """The photos that each face blends, with the corrections that even out the seams."""
    share = blend_weights(faces, labels, vertices, len(gains), options.blend_rings)
    at_vertices = solve_corrections(faces, share, candidates, agreement, gains, consensus=options.consensus)
    if not options.balance:
        at_vertices = replace(at_vertices, correction=np.zeros_like(at_vertices.correction))
    return blend_of_faces(faces, labels, candidates, agreement.accepted, at_vertices)


def _rejected_share(candidates: Candidates, agreement: Agreement) -> float:
    """Share of the views of faces that contradict the other views."""
    valid = candidates.view >= 0
    return float((valid & ~agreement.accepted).sum() / max(int(valid.sum()), 1))


def _all_tiles(
    layout: Layout,
    labels: Int32[np.ndarray, " m"],
    faces: Int32[np.ndarray, "m 3"],
    colors: Float64[np.ndarray, "n 3"],
    paint: Callable[
        [Layout, Int64[np.ndarray, " k"]], tuple[UInt8[np.ndarray, "h w 3"], Int32[np.ndarray, "h w"]]
    ],
    scratch: Scratch,
) -> tuple[UInt8[np.ndarray, "th tw 3"], float]:
    """The texture, tile beside tile, and the share of its texels that a face owns.

    Args:
        colors: of the vertices, for faces that no photo sees.
        paint: paints some faces into a tile; its texels, and the face that owns each (-1 for none).
    """
    (texture,) = scratch.arrays(layout.height, [((layout.width, 3), np.uint8)])
    tile_of_faces, painted = layout.tile_of_faces, 0
    count = int(tile_of_faces.max()) + 1
    for number in range(count):
        tile, mine = layout.tile(number), np.flatnonzero(tile_of_faces == number)
        part, owner = paint(tile, mine)
        lost = mine[labels[mine] < 0].astype(np.int32)
        if len(lost):
            paint_faces(part, owner, tile, lost, colors[faces[lost]].astype(np.float32))
        fill_gaps(part, owner)
        painted += int((owner >= 0).sum())
        x, y = layout.corner_of_tile(number)
        texture[y : y + tile.height, x : x + tile.width] = part
        scratch.release()
    return texture, painted / (tile.width * tile.height * count)


def _check(
    vertices: Float64[np.ndarray, "n 3"],
    faces: Int32[np.ndarray, "m 3"],
    views: Sequence[PinholeView],
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    masks: Sequence[Bool[np.ndarray, "_ _"] | None] | None,
) -> None:
    if len(faces) == 0:
        raise ValueError("a mesh without faces cannot be textured")
    if len(views) == 0 or len(views) != len(images) or (masks is not None and len(masks) != len(views)):
        raise ValueError(f"{len(views)} views, {len(images)} images: one of each per photo, at least one")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise ValueError("a face names a vertex that is not there")
    if not np.isfinite(vertices).all():
        raise ValueError("a vertex is not finite")
    for view, image in zip(views, images, strict=True):
        if image.shape != (view.height, view.width, 3):
            raise ValueError(
                f"{view.name}: the image is {image.shape}, the view {view.width} x {view.height}"
            )


def _corner_pixels(
    vertices: Float64[np.ndarray, "n 3"],
    faces: Int32[np.ndarray, "m 3"],
    labels: Int32[np.ndarray, " m"],
    views: Sequence[PinholeView],
) -> Float64[np.ndarray, "m 3 2"]:
    """Project each face's corners into the photo of its view; 0 for faces without one."""
    pixels = np.zeros((len(faces), 3, 2))
    for index, view in enumerate(views):
        mine = np.flatnonzero(labels == index)
        pixels[mine] = view.project(vertices[faces[mine].ravel()])[0].reshape(-1, 3, 2)
    return pixels


def near_origin(
    vertices: Float64[np.ndarray, "n 3"], views: Sequence[PinholeView]
) -> tuple[Float64[np.ndarray, "n 3"], list[PinholeView]]:
    """A mesh moved to the origin, and the views in that world."""
    centre = vertices.mean(axis=0)
    return np.asarray(vertices, np.float64) - centre, [_moved(view, centre) for view in views]


def _moved(view: PinholeView, origin: Float64[np.ndarray, "3"]) -> PinholeView:
    """The view in a world whose origin is moved: rays are cast in float32."""
    pose = view.cam_from_world.astype(np.float64).copy()
    pose[:, 3] += pose[:, :3] @ origin
    return replace(view, cam_from_world=pose)


def _surrounding_colors(
    faces: Int32[np.ndarray, "m 3"],
    labels: Int32[np.ndarray, " m"],
    color: Float32[np.ndarray, "m 3"],
    vertex_colors: UInt8[np.ndarray, "n 3"] | None,
    vertices: int,
) -> Float64[np.ndarray, "n 3"]:
    """Colours of all vertices: the mean of the faces round them that photos see, diffused to the others.

    Zero where photos see all faces: nobody asks.
    """
    seen = labels >= 0
    if seen.all():
        return np.zeros((vertices, 3))
    corner = faces[seen].ravel()
    number = np.bincount(corner, minlength=vertices)
    total = np.stack(
        [np.bincount(corner, np.repeat(color[seen][:, c], 3), vertices) for c in range(3)], axis=1
    )
    known = number > 0
    value = total / np.maximum(number, 1)[:, None]
    if vertex_colors is not None and not known.any():
        return vertex_colors.astype(np.float64)
    return diffuse_colors(faces, value, known)


def _seam_medians(
    mesh: TexturedMesh,
    adjacency: Adjacency,
    local: Float64[np.ndarray, "n 3"],
    views: Sequence[PinholeView],
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    scratch: Scratch,
) -> tuple[float, float]:
    """Median colour step over the seams: between the photos as they are, and between the two sides in the texture."""
    faces, edge = _seams(mesh, adjacency)
    if len(edge) == 0:
        return 0.0, 0.0
    middle = 0.5 * (local[edge[:, 0]] + local[edge[:, 1]])
    colors = np.zeros((2, len(edge), 3), np.float32)
    for side, label in enumerate(mesh.face_view[faces].T):
        for index in np.unique(label):
            mine = label == index
            xy = views[index].project(middle[mine])[0]
            colors[side, mine] = sample_image(images[index].astype(np.float32), xy)
    before = float(np.median(np.abs(colors[0] - colors[1]).mean(axis=1)))
    return before, float(np.median(seam_steps(mesh, adjacency, scratch)))


def seam_steps(
    mesh: TexturedMesh, adjacency: Adjacency | None = None, scratch: Scratch | None = None
) -> Float32[np.ndarray, " s"]:
    """Measure the colour step over each seam: the mean over channels between its sides, at the middle of the edge.

    A seam is an edge whose two faces different photos texture. Grey levels of 255.

    Args:
        scratch: where the texture lies, if that is a file: then it is not read all at once.
    """
    faces, edge = _seams(mesh, adjacency or face_adjacency(mesh.faces))
    sides = []
    for face in faces.T:
        on_edge = (mesh.faces[face][:, :, None] == edge[:, None, :]).any(axis=2).astype(np.float64)
        uv = (mesh.uvs[face] * (0.5 * on_edge)[:, :, None]).sum(axis=1)
        side = np.zeros((len(uv), 3), np.float32)
        row = np.clip((1 - uv[:, 1]) * _SEAM_BANDS, 0, _SEAM_BANDS - 1).astype(np.int64)
        for band in range(_SEAM_BANDS):
            mine = row == band
            side[mine] = look_up(mesh.texture, uv[mine])
            if scratch is not None:
                scratch.release()
        sides.append(side)
    return np.abs(sides[0] - sides[1]).mean(axis=1)


def _seams(
    mesh: TexturedMesh, adjacency: Adjacency
) -> tuple[Int32[np.ndarray, "s 2"], Int32[np.ndarray, "s 2"]]:
    """The two faces and the two vertices of every seam."""
    view = mesh.face_view[adjacency.pairs]
    seam = (view >= 0).all(axis=1) & (view[:, 0] != view[:, 1])
    return adjacency.pairs[seam], adjacency.edges[seam]
