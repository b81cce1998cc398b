"""Pictures of surfaces, points and cameras from anywhere, by ray casting and splatting: no display, no GPU.

What is drawn shares a ``Canvas`` with a depth buffer, so that a mesh, points and camera frusta hide each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64, Int32, UInt8, UInt32

from recon.core.cameras import PinholeView
from recon.core.kernels import kernel, maximum, minimum, part_of_kernel
from recon.core.mesh import Mesh
from recon.core.raycasting import ray_scene, tensor
from recon.surface.texture.topology import vertex_normals

Style = Literal["color", "texture", "shaded", "normals"]

_STYLES: dict[str, int] = {"color": 0, "texture": 1, "shaded": 2, "normals": 3}
# Rays cast at once.
_RAYS = 1 << 19
# What so many rays met is kept, 16 bytes each.
_KEPT_RAYS = 1 << 22
# Levels of a texture's pyramid: beyond 4 texels a look-up would reach over the space between charts.
_LEVELS = 3
_GREY = 170


@dataclass
class Canvas:
    """A picture under way, ``samples`` times larger along each axis than what comes of it.

    Attributes:
        view: the camera at the canvas's size.
        color: (h, w, 3). depth: (h, w) z-depth, infinite where nothing is yet.
        samples: canvas pixels per picture pixel and axis.
    """

    view: PinholeView
    color: UInt8[np.ndarray, "h w 3"]
    depth: Float32[np.ndarray, "h w"]
    samples: int

    @classmethod
    def blank(cls, view: PinholeView, background: tuple[int, int, int], samples: int = 2) -> Canvas:
        """An empty canvas for a picture from ``view``."""
        big = view.resized(view.width * samples, view.height * samples)
        color = np.empty((big.height, big.width, 3), np.uint8)
        color[:] = background
        return cls(big, color, np.full((big.height, big.width), np.inf, np.float32), samples)

    def picture(self) -> UInt8[np.ndarray, "h w 3"]:
        """The finished picture: each pixel is the mean of its samples."""
        if self.samples == 1:
            return self.color
        size = (self.view.width // self.samples, self.view.height // self.samples)
        return np.asarray(cv2.resize(self.color, size, interpolation=cv2.INTER_AREA))


class Surface:
    """A mesh that is made ready to be drawn from many places."""

    def __init__(
        self,
        vertices: Float32[np.ndarray, "n 3"],
        faces: Int32[np.ndarray, "m 3"],
        rgb: UInt8[np.ndarray, "n 3"] | None = None,
        uv: Float32[np.ndarray, "n 2"] | None = None,
        texture: UInt8[np.ndarray, "h w 3"] | None = None,
        scene: Any | None = None,
    ) -> None:
        """Args:
        vertices: near the origin (rays are single precision). faces: vertex indices.
        rgb: colours of the vertices; grey without.
        uv, texture: texture coordinates (v up) of the vertices and the texture.
        scene: the mesh's ``RaycastingScene``, if it is already built.
        """
        self.vertices = _writable(vertices, np.float32)
        self.faces = _writable(faces, np.int32)
        grey = np.full((len(vertices), 3), _GREY, np.uint8)
        self.rgb = grey if rgb is None else _writable(rgb, np.uint8)
        self.uv = None if uv is None else _writable(uv, np.float32)
        self.texture = None if texture is None else _writable(texture, np.uint8)
        self.scene = ray_scene(Mesh(self.vertices, self.faces)) if scene is None else scene
        self._seen: tuple[PinholeView, list[_Band]] | None = None

    def _bands(self, view: PinholeView) -> Iterable[_Band]:
        """What the rays of a view meet; of the last one it is kept, if it is small: it may be drawn in two styles."""
        if view.width * view.height > _KEPT_RAYS:
            return _cast_bands(self.scene, view)
        last = self._seen
        if last is None or not _same(last[0], view):
            self._seen = None  # not two at once
            last = self._seen = (view, list(_cast_bands(self.scene, view)))
        return last[1]

    @cached_property
    def normals(self) -> Float32[np.ndarray, "n 3"]:
        """Unit normals of the vertices."""
        return vertex_normals(self.vertices.astype(np.float64), self.faces)

    @cached_property
    def pyramid(self) -> tuple[UInt8[np.ndarray, "_ _ 3"], ...]:
        """The texture at full, half and quarter size."""
        if self.texture is None:
            return (np.full((1, 1, 3), _GREY, np.uint8),) * _LEVELS
        levels = [self.texture]
        for _ in range(_LEVELS - 1):
            h, w = levels[-1].shape[:2]
            size = (max(1, w // 2), max(1, h // 2))
            levels.append(np.asarray(cv2.resize(levels[-1], size, interpolation=cv2.INTER_AREA)))
        return tuple(levels)

    @cached_property
    def texels_per_unit(self) -> Float32[np.ndarray, " m"]:
        """Fineness of each face's texture: texels per unit of length."""
        if self.uv is None or self.texture is None:
            return np.zeros(len(self.faces), np.float32)
        a, b, c = (self.vertices[self.faces[:, i]] for i in range(3))
        area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
        size = np.array([self.texture.shape[1], self.texture.shape[0]], np.float32)
        p, q, r = (self.uv[self.faces[:, i]] * size for i in range(3))
        one, two = q - p, r - p
        texels = np.abs(one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0])
        return np.sqrt(texels / np.maximum(area, 1e-30)).astype(np.float32)

    def draw(self, canvas: Canvas, style: Style = "color") -> None:
        """Draw the mesh where nothing on the canvas is nearer.

        Args:
            style: "color" shows the vertices' colours, "texture" the texture, both unlit; "shaded" grey clay under a
                lamp by the camera that shows every bump; "normals" codes their direction in the camera.
        """
        view = canvas.view
        lit = style in ("shaded", "normals")
        none = np.zeros((1, 3), np.float32)
        rotation = view.cam_from_world[:, :3].astype(np.float32)
        uv = np.zeros((1, 2), np.float32) if self.uv is None else self.uv
        step = 1.0 / float(np.sqrt(view.K[0, 0] * view.K[1, 1]))
        for band in self._bands(view):
            _shade(
                canvas.color,
                canvas.depth,
                band.top,
                band.depth,
                band.face,
                band.second,
                self.faces,
                _STYLES[style],
                self.rgb,
                uv,
                self.pyramid if style == "texture" else (self.rgb[None, :1],) * _LEVELS,
                self.texels_per_unit if style == "texture" else none[:, 0],
                np.float32(step),
                self.normals if lit else none,
                np.stack([rotation, np.linalg.inv(view.K).astype(np.float32)]),
                np.empty((2, 3), np.float32),
            )


def _writable(values: Any, kind: Any) -> Any:
    """The array as the kernels take it (for read-only ones they would be compiled once more); a copy only if needed."""
    return np.require(values, kind, ["C", "W"])


class _Band(NamedTuple):
    """Some rows of a view: the first of them, and of each pixel's ray the depth, the face and the place on it."""

    top: int
    depth: Float32[np.ndarray, " k"]
    face: UInt32[np.ndarray, " k"]
    second: Float32[np.ndarray, "k 2"]


def _same(one: PinholeView, other: PinholeView) -> bool:
    """Two views see the same."""
    size = (one.width, one.height) == (other.width, other.height)
    return size and bool((one.K == other.K).all() and (one.cam_from_world == other.cam_from_world).all())


def _cast_bands(scene: Any, view: PinholeView) -> Iterator[_Band]:
    """Cast the rays through all pixel centres, some rows at a time."""
    rows = max(1, _RAYS // view.width)
    rays = np.empty((rows, view.width, 6), np.float32)
    inverse, rotation = np.linalg.inv(view.K), view.cam_from_world[:, :3]
    rays[..., :3] = view.center
    x = np.arange(view.width)
    for top in range(0, view.height, rows):
        number = min(rows, view.height - top)
        y = np.arange(top, top + number)[:, None]
        a = inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]
        b = inverse[1, 1] * y + inverse[1, 2]
        # Unit z in the camera: a ray's parameter is a z-depth.
        for axis in range(3):
            rays[:number, :, 3 + axis] = a * rotation[0, axis] + b * rotation[1, axis] + rotation[2, axis]
        answer = scene.cast_rays(tensor(rays[:number].reshape(-1, 6)))
        yield _Band(top, *(answer[name].numpy() for name in ("t_hit", "primitive_ids", "primitive_uvs")))


@kernel()
def _shade(
    color: UInt8[np.ndarray, "h w 3"],
    depth: Float32[np.ndarray, "h w"],
    top: int,
    t: Float32[np.ndarray, " k"],
    ids: UInt32[np.ndarray, " k"],
    second: Float32[np.ndarray, "k 2"],
    faces: Int32[np.ndarray, "m 3"],
    style: int,
    rgb: UInt8[np.ndarray, "n 3"],
    uv: Float32[np.ndarray, "n 2"],
    pyramid: tuple[UInt8[np.ndarray, "_ _ 3"], ...],
    density: Float32[np.ndarray, " m"],
    step: np.float32,
    normals: Float32[np.ndarray, "n 3"],
    camera: Float32[np.ndarray, "2 3 3"],
    work: Float32[np.ndarray, "2 3"],
) -> None:
    """Colour the canvas pixels whose rays meet something nearer than what is there.

    ``camera`` holds the rotation from the world and the inverse of K.
    """
    rotation, inverse = camera[0], camera[1]
    width = color.shape[1]
    mixed, normal = work[0], work[1]
    for i in range(len(t)):
        y, x = top + i // width, i % width
        if not t[i] < depth[y, x]:  # infinite where nothing was met
            continue
        depth[y, x] = t[i]
        f = ids[i]
        w1, w2 = second[i, 0], second[i, 1]
        w0 = np.float32(1) - w1 - w2
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        if style == 0:
            for k in range(3):
                mixed[k] = w0 * rgb[a, k] + w1 * rgb[b, k] + w2 * rgb[c, k]
        elif style == 1:
            u = w0 * uv[a, 0] + w1 * uv[b, 0] + w2 * uv[c, 0]
            v = w0 * uv[a, 1] + w1 * uv[b, 1] + w2 * uv[c, 1]
            wanted = np.log2(maximum(density[f] * t[i] * step, np.float32(1)))
            low = minimum(np.int64(wanted), len(pyramid) - 1)
            share = minimum(wanted, np.float32(len(pyramid) - 1)) - low
            mixed[0], mixed[1], mixed[2] = 0, 0, 0
            _add_texel(pyramid[low], u, v, np.float32(1) - share, mixed)
            if share > 0:
                _add_texel(pyramid[low + 1], u, v, share, mixed)
        else:
            length = np.float32(0)
            for row in range(3):
                value = np.float32(0)
                for k in range(3):
                    value += rotation[row, k] * (w0 * normals[a, k] + w1 * normals[b, k] + w2 * normals[c, k])
                normal[row] = value
                length += value * value
            length = maximum(np.sqrt(length), np.float32(1e-6))
            towards = (
                normal[0] * (inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2])
                + normal[1] * (inverse[1, 1] * y + inverse[1, 2])
                + normal[2]
            )
            sign = (np.float32(-1) if towards > 0 else np.float32(1)) / length
            for k in range(3):
                normal[k] *= sign
            if style == 3:
                mixed[0] = (normal[0] + 1) * 127.5
                mixed[1] = (1 - normal[1]) * 127.5
                mixed[2] = (1 - normal[2]) * 127.5
            else:
                # A key light from the upper left of the camera, a weak one from the right, and some from everywhere.
                key = maximum(-0.45 * normal[0] - 0.6 * normal[1] - 0.66 * normal[2], 0.0)
                fill = maximum(0.75 * normal[0] + 0.1 * normal[1] - 0.65 * normal[2], 0.0)
                light = 0.3 + 0.62 * key + 0.24 * fill
                mixed[0], mixed[1], mixed[2] = 238 * light, 232 * light, 222 * light
        for k in range(3):
            color[y, x, k] = np.uint8(
                minimum(maximum(mixed[k] + np.float32(0.5), np.float32(0)), np.float32(255))
            )


@part_of_kernel()
def _add_texel(
    image: UInt8[np.ndarray, "h w 3"],
    u: np.float32,
    v: np.float32,
    share: np.float32,
    mixed: Float32[np.ndarray, "3"],
) -> None:
    """Add a share of a bilinear look-up (v up, edges repeated)."""
    h, w = image.shape[0], image.shape[1]
    x = minimum(maximum(u * w - np.float32(0.5), np.float32(0)), np.float32(w - 1))
    y = minimum(maximum((1 - v) * h - np.float32(0.5), np.float32(0)), np.float32(h - 1))
    x0, y0 = np.int64(x), np.int64(y)
    x1, y1 = minimum(x0 + 1, w - 1), minimum(y0 + 1, h - 1)
    fx, fy = x - np.float32(x0), y - np.float32(y0)
    for k in range(3):
        up = image[y0, x0, k] * (1 - fx) + image[y0, x1, k] * fx
        low = image[y1, x0, k] * (1 - fx) + image[y1, x1, k] * fx
        mixed[k] += share * (up * (1 - fy) + low * fy)


# ---- points and lines ----------------------------------------------------------------------------


def draw_points(
    canvas: Canvas, xyz: Float[np.ndarray, "n 3"], rgb: UInt8[np.ndarray, "n 3"], radius: float
) -> None:
    """Draw points as little discs of one radius in the world, where nothing on the canvas is nearer."""
    pose = canvas.view.cam_from_world
    points = np.asarray(xyz)
    points = points - canvas.view.center.astype(
        points.dtype
    )  # in double, if the cloud is far from the origin
    _splat(
        np.ascontiguousarray(points, np.float32) @ pose[:, :3].T.astype(np.float32),
        _writable(rgb, np.uint8),
        canvas.view.K.astype(np.float32),
        np.float32(radius),
        canvas.depth,
        canvas.color,
    )


@kernel()
def _splat(
    points: Float32[np.ndarray, "n 3"],
    rgb: UInt8[np.ndarray, "n 3"],
    K: Float32[np.ndarray, "3 3"],
    radius: np.float32,
    nearest: Float32[np.ndarray, "h w"],
    image: UInt8[np.ndarray, "h w 3"],
) -> None:
    """Draw discs into an image with a depth buffer, in place."""
    h, w = nearest.shape
    for i in range(len(points)):
        z = points[i, 2]
        if not z > 1e-6:
            continue
        x = K[0, 0] * points[i, 0] / z + K[0, 2]
        y = K[1, 1] * points[i, 1] / z + K[1, 2]
        r = minimum(maximum(K[0, 0] * radius / z, 0.6), 12.0)
        if not (x > -r and x < w - 1 + r and y > -r and y < h - 1 + r):
            continue
        for v in range(maximum(0, np.int64(np.ceil(y - r))), minimum(h - 1, np.int64(np.floor(y + r))) + 1):
            for u in range(
                maximum(0, np.int64(np.ceil(x - r))), minimum(w - 1, np.int64(np.floor(x + r))) + 1
            ):
                if (u - x) ** 2 + (v - y) ** 2 <= r * r and z < nearest[v, u]:
                    nearest[v, u] = z
                    image[v, u, 0] = rgb[i, 0]
                    image[v, u, 1] = rgb[i, 1]
                    image[v, u, 2] = rgb[i, 2]


def draw_lines(
    canvas: Canvas,
    segments: Float[np.ndarray, "n 2 3"],
    rgb: UInt8[np.ndarray, "n 3"],
    width: float = 1.5,
) -> None:
    """Draw lines in the world, so many picture pixels wide wherever they are, where nothing nearer is."""
    pose = canvas.view.cam_from_world
    local = np.asarray(segments, np.float64) @ pose[:, :3].T + pose[:, 3]
    _draw_segments(
        local,
        _writable(rgb, np.uint8),
        canvas.view.K.astype(np.float64),
        0.5 * width * canvas.samples,
        canvas.depth,
        canvas.color,
    )


@kernel()
def _draw_segments(
    segments: Float64[np.ndarray, "n 2 3"],
    rgb: UInt8[np.ndarray, "n 3"],
    K: Float64[np.ndarray, "3 3"],
    radius: float,
    nearest: Float32[np.ndarray, "h w"],
    image: UInt8[np.ndarray, "h w 3"],
) -> None:
    h, w = nearest.shape
    for i in range(len(segments)):
        a, b = segments[i, 0].copy(), segments[i, 1].copy()
        if b[2] < a[2]:
            a, b = b, a
        closest = 1e-3 * maximum(abs(b[2]), 1e-9)
        if b[2] <= closest:
            continue
        if a[2] < closest:
            a += (closest - a[2]) / (b[2] - a[2]) * (b - a)
        ax, ay = K[0, 0] * a[0] / a[2] + K[0, 2], K[1, 1] * a[1] / a[2] + K[1, 2]
        bx, by = K[0, 0] * b[0] / b[2] + K[0, 2], K[1, 1] * b[1] / b[2] + K[1, 2]
        # The part inside the picture (Liang & Barsky 1984), with room for the line's width.
        first, last = 0.0, 1.0
        dx, dy = bx - ax, by - ay
        for p, q in (
            (-dx, ax + radius),
            (dx, w - 1 + radius - ax),
            (-dy, ay + radius),
            (dy, h - 1 + radius - ay),
        ):
            if p == 0.0:
                if q < 0.0:
                    last = -1.0
            elif p < 0.0:
                first = maximum(first, q / p)
            else:
                last = minimum(last, q / p)
        if first > last:
            continue
        steps = maximum(1, np.int64(np.ceil(2.0 * (last - first) * maximum(abs(dx), abs(dy)))))
        for s in range(steps + 1):
            share = first + (last - first) * s / steps
            x, y = ax + share * dx, ay + share * dy
            # What is linear along a line in a picture is the inverse of the depth.
            z = 1.0 / ((1.0 - share) / a[2] + share / b[2])
            for v in range(
                maximum(0, np.int64(np.ceil(y - radius))), minimum(h - 1, np.int64(np.floor(y + radius))) + 1
            ):
                for u in range(
                    maximum(0, np.int64(np.ceil(x - radius))),
                    minimum(w - 1, np.int64(np.floor(x + radius))) + 1,
                ):
                    if (u - x) ** 2 + (v - y) ** 2 <= radius * radius and z <= nearest[v, u]:
                        nearest[v, u] = z
                        for k in range(3):
                            image[v, u, k] = rgb[i, k]
