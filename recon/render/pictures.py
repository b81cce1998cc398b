"""Pictures of every intermediate result as uint8 arrays, made without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, UInt8

from recon.core.cameras import PinholeView
from recon.core.mesh import Mesh
from recon.render.canvas import Canvas, Style, Surface, draw_points
from recon.render.frusta import camera_lines

Picture = UInt8[np.ndarray, "h w 3"]

_PAPER = (250, 250, 248)
_INK = (60, 60, 66)
_HOLE = (38, 38, 42)
_ACCENT = (214, 69, 40)
# From little evidence to much: ColorBrewer's YlGnBu.
_EVIDENCE = (
    (255, 255, 217), (237, 248, 177), (199, 233, 180), (127, 205, 187), (65, 182, 196), (29, 145, 192), (34, 94, 168),
    (37, 52, 148), (8, 29, 88),
)  # fmt: skip

# Points farther from every camera than this many median distances are background and do not frame an overview.
_NEAR = 2.0

# ---- flow ----------------------------------------------------------------------------------------


def color_wheel() -> Float64[np.ndarray, "55 3"]:
    """Make the 55 colours of Middlebury's flow coding, 0…1 (Baker et al., IJCV 2011, figure 7: as many steps
    between neighbouring hues as the eye tells apart)."""
    segments = (15, 6, 4, 11, 13, 6)
    # Each segment goes from one pure or mixed hue to the next: red, yellow, green, cyan, blue, magenta.
    corners = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1]], np.float64)
    parts = []
    for index, steps in enumerate(segments):
        share = (np.arange(steps) / steps)[:, None]
        parts.append(corners[index] * (1 - share) + corners[(index + 1) % 6] * share)
    return np.concatenate(parts)


def flow_picture(flow: Float[np.ndarray, "h w 2"], largest: float | None = None) -> Picture:
    """Colour a flow by Middlebury's wheel: hue is direction, saturation is length; unknown is black.

    Args:
        flow: (h, w, 2); not finite or above 1e9 is unknown.
        largest: length in pixels at full saturation (longer is darkened); None for the 99th percentile.
    """
    known = np.isfinite(flow).all(axis=-1) & (np.abs(flow) < 1e9).all(axis=-1)
    safe = np.where(known[..., None], flow, 0).astype(np.float64)
    length = np.linalg.norm(safe, axis=-1)
    if largest is None:
        largest = float(np.percentile(length[known], 99)) if known.any() else 1.0
    length = length / max(largest, 1e-6)
    wheel = color_wheel()
    position = (np.arctan2(-safe[..., 1], -safe[..., 0]) / np.pi + 1) / 2 * (len(wheel) - 1)
    low = np.floor(position).astype(int)
    share = (position - low)[..., None]
    color = wheel[low % len(wheel)] * (1 - share) + wheel[(low + 1) % len(wheel)] * share
    inside = (length <= 1)[..., None]
    color = np.where(inside, 1 - length[..., None] * (1 - color), color * 0.75)
    return _bytes(np.where(known[..., None], color, 0) * 255)


def warp_picture(target: Picture, flow: Float[np.ndarray, "h w 2"]) -> Picture:
    """Put the target's colours where the flow says they belong in the source; a checkerboard where it leaves.

    Args:
        target: (ht, wt, 3) uint8.
        flow: (h, w, 2) target minus source.
    """
    h, w = flow.shape[:2]
    x, y = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    known = np.isfinite(flow).all(axis=-1)
    at_x = np.where(known, x + flow[..., 0], -9).astype(np.float32)
    at_y = np.where(known, y + flow[..., 1], -9).astype(np.float32)
    ht, wt = target.shape[:2]
    inside = (at_x >= -0.5) & (at_x <= wt - 0.5) & (at_y >= -0.5) & (at_y <= ht - 0.5)
    warped = cv2.remap(target, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.where(inside[..., None], warped, _checker(h, w)).astype(np.uint8)


def consistency_picture(source: Picture, consistent: Bool[np.ndarray, "h w"]) -> Picture:
    """Show which pixels are matched consistently: the source as it is there, dark and red elsewhere."""
    grey = cv2.cvtColor(source, cv2.COLOR_RGB2GRAY).astype(np.float32)[..., None]
    lost = 0.35 * grey + np.array([70, 8, 12], np.float32)
    out = _bytes(np.where(consistent[..., None], source, lost))
    return out


def scale_picture(scales: Float[np.ndarray, "h w"], legend: bool = True) -> Picture:
    """Colour a map of SIFT scales (sigma in pixels) on a logarithmic axis, with a legend."""
    positive = np.isfinite(scales) & (scales > 0)
    values = np.where(positive, scales, np.nan).astype(np.float64)
    return _scalar_picture(values, "sigma / px", legend, logarithmic=True, colormap=cv2.COLORMAP_INFERNO)


# ---- depth ---------------------------------------------------------------------------------------


def depth_picture(
    depth: Float[np.ndarray, "h w"], legend: bool = True, limits: tuple[float, float] | None = None
) -> Picture:
    """Colour a depth map: near is bright, far is dark, holes are charcoal; with a legend.

    Args:
        depth: (h, w), 0 or not finite where unknown.
        legend: add a bar with numbers on the right.
        limits: nearest and farthest depth of the colours; None for the 1st and 99th percentile.
    """
    values = np.where(np.isfinite(depth) & (depth > 0), depth, np.nan).astype(np.float64)
    return _scalar_picture(values, "depth", legend, limits, reverse=True, colormap=cv2.COLORMAP_VIRIDIS)


def normal_picture(normal: Float[np.ndarray, "h w 3"]) -> Picture:
    """Colour unit normals in camera coordinates: right is red, up is green, towards the camera is blue."""
    squares = normal * normal
    known = squares[..., 0] + squares[..., 1] + squares[..., 2] > 0.25
    picture = _bytes((normal * np.array([1, -1, -1], np.float32) + 1) * np.float32(127.5))
    picture[~known] = _HOLE
    return picture


# ---- surfaces and clouds -------------------------------------------------------------------------


def mesh_picture(
    mesh: Mesh,
    view: PinholeView,
    style: Literal["color", "shaded", "normals"] = "color",
    samples: int = 2,
    scene: Any | None = None,
) -> Picture:
    """Render a mesh by ray casting.

    Args:
        mesh: the surface.
        view: the camera, real or virtual.
        style: as ``rendering.Surface.draw`` has it.
        samples: rays per pixel and axis.
        scene: the mesh's ray scene, if it is already built.
    """
    surface = Surface(mesh.vertices, mesh.faces, mesh.rgb, scene=scene)
    return surface_picture(surface, view, style, samples)


def surface_picture(
    surface: Surface,
    view: PinholeView,
    style: Style = "color",
    samples: int = 2,
) -> Picture:
    """The same of a mesh that is made ready, for many pictures of one mesh."""
    canvas = Canvas.blank(view, _PAPER, samples)
    surface.draw(canvas, style)
    return canvas.picture()


def cloud_picture(
    xyz: Float[np.ndarray, "n 3"],
    rgb: UInt8[np.ndarray, "n 3"],
    view: PinholeView,
    radius: float | None = None,
    samples: int = 2,
) -> Picture:
    """Render points as little discs with a depth buffer.

    Args:
        xyz, rgb: the cloud.
        view: the camera, real or virtual.
        radius: of a disc in world units; None for ``disc_radius``.
        samples: the picture is drawn so many times larger and averaged.
    """
    canvas = Canvas.blank(view, _PAPER, samples)
    if len(xyz):
        draw_points(canvas, xyz, rgb, disc_radius(xyz) if radius is None else radius)
    return canvas.picture()


def disc_radius(xyz: Float[np.ndarray, "n 3"]) -> float:
    """Radius of the discs that a cloud is drawn with, by its own spacing."""
    return 0.8 * point_spacing(xyz)


def point_spacing(xyz: Float[np.ndarray, "n 3"], sample: int = 2000) -> float:
    """Compute the median distance from a point to its nearest neighbour, over an even sample of the cloud."""
    from scipy.spatial import cKDTree

    if len(xyz) < 2:
        return 0.0
    points = np.asarray(xyz, np.float64)
    some = points[:: max(1, len(points) // sample)]
    tree = cKDTree(points, balanced_tree=False, compact_nodes=False)  # built in half the time
    distances = np.asarray(tree.query(some, k=2)[0])
    return float(np.median(distances[:, 1]))


# ---- cameras -------------------------------------------------------------------------------------


def overview_view(
    xyz: Float[np.ndarray, "n 3"],
    views: Sequence[PinholeView],
    style: Literal["top", "oblique", "tilted", "side", "front"] = "oblique",
    width: int = 960,
    height: int = 640,
    with_cameras: bool = True,
) -> PinholeView:
    """Make a virtual camera from which the whole scene is in the picture.

    What is up comes from the photos (people hold cameras level), what is ahead from the mean direction of
    view.

    Args:
        xyz: the cloud or the mesh's vertices. What the cameras see far behind the rest (beyond ``_NEAR`` times the
            median distance to the nearest camera) and the outermost 1% on each side may fall out of the picture.
        views: the real cameras.
        style: from above, from behind and above the cameras, the same less steeply, from the side, or as the cameras
            see it.
        width, height: size of the picture.
        with_cameras: the cameras must be in the picture too.
    """
    up = -np.mean([view.cam_from_world[1, :3] for view in views], axis=0)
    axes = np.array([view.cam_from_world[2, :3] for view in views])
    centers = np.array([view.center for view in views])
    points = np.asarray(xyz).reshape(-1, 3)
    points = points[:: max(1, len(points) // 20000)].astype(np.float64)
    if len(points):
        points = points[_near(points, centers)]
        low, high = np.percentile(points, [1, 99], axis=0)
        points = points[((points >= low) & (points <= high)).all(axis=1)]
    shown = np.concatenate([points, centers]) if with_cameras or not len(points) else points
    middle = (shown.min(axis=0) + shown.max(axis=0)) / 2
    ahead = axes.mean(axis=0)
    if np.linalg.norm(ahead) < 0.3:
        # The cameras look inwards from all sides: any horizontal direction will do.
        ahead = middle - centers[0]
    up = _unit(up if np.linalg.norm(up) > 1e-6 else np.array([0.0, 0.0, 1.0]))
    level = ahead - (ahead @ up) * up
    level = _unit(level if np.linalg.norm(level) > 1e-6 else np.cross(up, [0.577, 0.577, 0.577]))
    right = np.cross(level, up)
    if style == "top":
        z, x = -up, right
    elif style == "side":
        z, x = -right, level
    elif style == "front":
        z, x = _unit(level - 0.12 * up), right
    elif style == "tilted":
        z, x = _unit(0.86 * level - 0.34 * up + 0.38 * right), np.zeros(3)
        x = _unit(np.cross(z, up))
    else:
        z, x = _unit(0.66 * level - 0.55 * up + 0.5 * right), np.zeros(3)
        x = _unit(np.cross(z, up))
    R = np.stack([x, np.cross(z, x), z])
    f = 0.5 * max(width, height) / np.tan(np.radians(40) / 2)
    half = np.array([width, height]) / 2 / f * 0.92
    local = (shown - middle) @ R.T
    # Slide sideways so that the picture is filled evenly, then step back until everything is inside.
    center = np.zeros(3)
    for _ in range(3):
        moved = local - center
        distance = float(np.max(np.abs(moved[:, :2]) / half - moved[:, 2:], initial=1e-6))
        seen = moved[:, :2] / (moved[:, 2:] + distance)
        center[:2] += (seen.min(axis=0) + seen.max(axis=0)) / 2 * distance
    moved = local - center
    distance = float(np.max(np.abs(moved[:, :2]) / half - moved[:, 2:], initial=1e-6))
    eye = middle + R.T @ (center - [0, 0, distance])
    K = np.array([[f, 0, (width - 1) / 2], [0, f, (height - 1) / 2], [0, 0, 1]])
    return PinholeView(-1, f"overview-{style}", K, np.column_stack([R, -R @ eye]), width, height)


def _near(points: Float64[np.ndarray, "n 3"], centers: Float64[np.ndarray, "m 3"]) -> Bool[np.ndarray, " n"]:
    """True for the points that belong to what the photos are of, at least half of them."""
    from scipy.spatial import cKDTree

    distance = np.asarray(cKDTree(centers).query(points)[0])
    return np.asarray(distance <= _NEAR * np.median(distance))


def cameras_picture(
    xyz: Float[np.ndarray, "n 3"],
    rgb: UInt8[np.ndarray, "n 3"],
    views: Sequence[PinholeView],
    style: Literal["top", "oblique", "side"] = "oblique",
    width: int = 960,
    height: int = 640,
    radius: float | None = None,
) -> Picture:
    """Draw the cloud with the cameras as pyramids, from above or obliquely; the first camera is filled.

    ``radius`` is as of ``cloud_picture``.
    """
    eye = overview_view(xyz, views, style, width, height)
    picture = cloud_picture(xyz, rgb, eye, radius)
    centers = np.array([view.center for view in views])
    spread = float(np.linalg.norm(centers - centers.mean(axis=0), axis=1).max())
    far = float(np.linalg.norm(eye.center - centers.mean(axis=0)))
    size = max(0.03 * far, min(0.05 * far, 0.5 * spread / max(len(views), 1)))
    shift = 4
    for index, view in enumerate(views):
        lines = camera_lines(view, size)
        image_xy, z = eye.project(lines.reshape(-1, 3))
        if not (z > 1e-6).all():
            continue
        fixed = np.rint(image_xy * 2**shift).astype(np.int32).reshape(-1, 2, 2)
        color = _ACCENT if index == 0 else (32, 92, 168)
        face = picture.copy()
        cv2.fillPoly(face, [np.ascontiguousarray(fixed[4:, 0])], color, cv2.LINE_AA, shift)
        picture = cv2.addWeighted(face, 0.35, picture, 0.65, 0)
        for a, b in fixed:
            start, end = (int(a[0]), int(a[1])), (int(b[0]), int(b[1]))
            cv2.line(picture, start, end, color, 1, cv2.LINE_AA, shift)
    return picture


# ---- view graph ----------------------------------------------------------------------------------


def view_graph_picture(
    names: Sequence[str],
    weights: Mapping[tuple[int, int], float],
    kept: set[tuple[int, int]] | None = None,
    width: int = 900,
) -> Picture:
    """Draw the view graph: photos on a circle in order, edges as wide and dark as their evidence.

    Args:
        names: photos by id.
        weights: evidence (verified matches) per pair of ids.
        kept: pairs that survived pruning; the others are dotted. None if all did.
        width: of the square picture in pixels.
    """
    n, big = len(names), 2 * width  # drawn twice as large, then averaged
    angle = np.pi / 2 - 2 * np.pi * np.arange(n) / max(n, 1)
    ways = np.stack([np.cos(angle), -np.sin(angle)], axis=1)
    at = np.rint(big / 2 + big / 2.9 * ways).astype(int)
    canvas = np.full((big, big, 3), _PAPER, np.uint8)
    most = max(weights.values(), default=1.0) or 1.0
    for (i, j), weight in sorted(weights.items(), key=lambda item: item[1]):
        share = float(max(weight, 0) / most)
        if kept is None or (i, j) in kept:
            place = (0.25 + 0.7 * share) * (len(_EVIDENCE) - 1)
            color = tuple(
                float(np.interp(place, range(len(_EVIDENCE)), band)) for band in zip(*_EVIDENCE, strict=True)
            )
            cv2.line(canvas, at[i].tolist(), at[j].tolist(), color, round(2 + 11 * share), cv2.LINE_AA)
            continue
        steps = max(1, int(np.linalg.norm(at[i] - at[j]) / 8))
        for dot in np.linspace(at[i], at[j], steps):
            cv2.circle(canvas, np.rint(dot).astype(int).tolist(), 1, (209, 94, 81), -1, cv2.LINE_AA)
    joined = {number for pair in (weights if kept is None else kept) for number in pair}
    for i in range(n):
        for radius, color in ((15, (255, 255, 255)), (12, (29, 78, 121) if i in joined else _ACCENT)):
            cv2.circle(canvas, at[i].tolist(), radius, color, -1, cv2.LINE_AA)
    picture = cv2.resize(canvas, (width, width), interpolation=cv2.INTER_AREA)
    for i in range(0, n, max(1, n // 60)):
        name = names[i].rsplit("/", 1)[-1][-18:]
        picture = _write_along(
            picture, name, width / 2 + 0.366 * width * ways[i], ways[i], 12 if n <= 40 else 8
        )
    told = f"{n} photos, {len(weights)} pairs, most evidence {most:.0f}"
    return _write(picture, told, width // 90, width - 22, 14)


# ---- sheets --------------------------------------------------------------------------------------


def contact_sheet(
    pictures: Sequence[Picture], captions: Sequence[str] = (), columns: int = 4, cell_width: int = 320
) -> Picture:
    """Lay pictures out in rows with captions below; each keeps its proportions."""
    if not pictures:
        return np.full((32, 32, 3), 250, np.uint8)
    columns = min(columns, len(pictures))
    heights = [max(1, round(p.shape[0] * cell_width / p.shape[1])) for p in pictures]
    gap, text = 8, 22 if captions else 0
    rows = [heights[i : i + columns] for i in range(0, len(heights), columns)]
    tops = np.cumsum([gap, *[max(row) + text + gap for row in rows]])
    sheet = np.full((int(tops[-1]), gap + columns * (cell_width + gap), 3), _PAPER, np.uint8)
    for index, (picture, h) in enumerate(zip(pictures, heights, strict=True)):
        row = index // columns
        top, left = int(tops[row]), gap + index % columns * (cell_width + gap)
        small = cell_width < picture.shape[1]
        way = cv2.INTER_AREA if small else cv2.INTER_LINEAR
        sheet[top : top + h, left : left + cell_width] = cv2.resize(
            picture, (cell_width, h), interpolation=way
        )
        if index < len(captions):
            sheet = _write(sheet, captions[index], left + 2, top + max(rows[row]) + 3, 14)
    return sheet


# ---- shared --------------------------------------------------------------------------------------


def _scalar_picture(
    values: Float64[np.ndarray, "h w"],
    label: str,
    legend: bool,
    limits: tuple[float, float] | None = None,
    logarithmic: bool = False,
    reverse: bool = False,
    colormap: int = cv2.COLORMAP_VIRIDIS,
) -> Picture:
    """Colour a map whose unknown values are NaN, with a bar on the right."""
    known = np.isfinite(values)
    if limits is None:
        limits = (0.0, 1.0)
        if known.any():
            limits = tuple(np.percentile(values[known], [1, 99]).tolist())
    low, high = float(limits[0]), float(limits[1])
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
        low, high = low * 0.95, low * 1.05 + 1e-9
    forward = np.log if logarithmic else np.asarray
    a, b = forward(low), forward(high)
    safe = np.where(known, values, low)
    unit = np.clip((forward(safe) - a) / (b - a), 0, 1)
    picture = _colormap(1 - unit if reverse else unit, colormap)
    picture[~known] = _HOLE
    h = picture.shape[0]
    size = int(np.clip(h // 24, 9, 22))
    if not legend or h < 6 * size:  # no room for numbers
        return picture
    bar_width, panel = max(8, size), max(8, size) + int(5.2 * size)
    out = np.full((h, picture.shape[1] + panel, 3), _PAPER, np.uint8)
    out[:, : picture.shape[1]] = picture
    top, bottom = int(2.2 * size), h - size
    ramp = np.linspace(1, 0, max(bottom - top, 2))[:, None] * np.ones((1, bar_width))
    left = picture.shape[1] + size // 2
    bar = _colormap(1 - ramp if reverse else ramp, colormap)
    out[top : top + len(bar), left : left + bar_width] = bar
    out = _write(out, label, left, size // 3, size)
    ticks = max(2, min(6, (bottom - top) // (3 * size)))
    for share in np.linspace(0, 1, ticks):
        value = np.exp(a + share * (b - a)) if logarithmic else a + share * (b - a)
        y = bottom - 1 - share * (bottom - top - 1)
        text = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
        out = _write(out, text, left + bar_width + size // 3, round(y - 0.6 * size), size)
    return out


def _colormap(unit: Float[np.ndarray, "h w"], colormap: int) -> Picture:
    """Colour 0…1."""
    grey = np.rint(np.clip(unit, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(grey, colormap)[..., ::-1])


def _checker(h: int, w: int) -> Picture:
    """A light checkerboard that says: nothing here."""
    y, x = np.mgrid[:h, :w] // 8
    return np.where(((x + y) % 2 == 0)[..., None], 208, 232).astype(np.uint8).repeat(3, axis=2)


def _write(picture: Picture, text: str, x: int, y: int, size: int) -> Picture:
    """Write a line of text into a picture, in place, with its top left corner at (x, y)."""
    from PIL import Image, ImageDraw

    left, top = max(x, 0), max(y, 0)
    _, _, right, bottom = _font(size).getbbox(text)
    part = picture[top : y + int(bottom) + 2, left : x + int(right) + 2]
    if part.size:
        image = Image.fromarray(np.ascontiguousarray(part))
        ImageDraw.Draw(image).text((x - left, y - top), text, fill=_INK, font=_font(size))
        part[:] = np.array(image)
    return picture


@lru_cache(maxsize=16)
def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _write_along(
    picture: Picture, text: str, start: Float64[np.ndarray, "2"], way: Float64[np.ndarray, "2"], size: int
) -> Picture:
    """Write a line of text from a point on in a direction (y down), never upside down."""
    from PIL import Image, ImageDraw

    left, top, right, bottom = _font(size).getbbox(text)
    mask = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))
    ImageDraw.Draw(mask).text((1 - left, 1 - top), text, fill=255, font=_font(size))
    turn = np.degrees(np.arctan2(-way[1], way[0])) + (180 if way[0] < -1e-9 else 0)
    middle = start + way * mask.width / 2
    mask = mask.rotate(turn, Image.Resampling.BICUBIC, expand=True)
    image = Image.fromarray(picture)
    corner = np.rint(middle - np.array(mask.size) / 2).astype(int)
    image.paste(_INK, (int(corner[0]), int(corner[1])), mask)
    return np.array(image)


def _unit(vector: Float[np.ndarray, "3"]) -> Float64[np.ndarray, "3"]:
    return np.asarray(vector, np.float64) / np.linalg.norm(vector)


def _bytes(values: Float32[np.ndarray, "..."] | Float64[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
