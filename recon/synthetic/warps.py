"""Pairs with known dense correspondence: random warps of photos, and rendered views with depth."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from recon.core.posed import Camera


@dataclass(frozen=True)
class WarpSettings:
    """Strength of random warps.

    Attributes:
        corner: standard deviation of the corners of the homography, as a share of the image's side.
        bend: standard deviation of the thin plate's control points, as a share of the image's side.
        controls: control points each way.
        scale: the warped image shows a part of the original, magnified by a factor between 1 and this.
        turn: largest rotation, degrees.
        mirror: probability that the pair is mirrored as a whole.
        contrast, brightness, colour: largest changes of appearance, as shares.
    """

    corner: float = 0.06
    bend: float = 0.025
    controls: int = 4
    scale: float = 1.5
    turn: float = 20.0
    mirror: float = 0.5
    contrast: float = 0.35
    brightness: float = 0.2
    colour: float = 0.15


@dataclass(frozen=True)
class WarpedPair:
    """An image, a warped one of the same size, and where each pixel of the warped one comes from.

    Attributes:
        original, warped: images.
        position: (h, w, 2) float32, (x, y) in the original of each pixel of the warped image; may lie outside of it,
            where the warped image is filled by reflection.
    """

    original: UInt8[np.ndarray, "h w 3"]
    warped: UInt8[np.ndarray, "h w 3"]
    position: Float32[np.ndarray, "h w 2"]


def random_warp(
    rgb: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator, settings: WarpSettings | None = None
) -> WarpedPair:
    """Warp an image by a random similarity, homography and thin plate spline, and change its appearance."""
    s = settings or WarpSettings()
    if rng.random() < s.mirror:
        rgb = np.ascontiguousarray(rgb[:, ::-1])
    h, w = rgb.shape[:2]
    side = max(h, w)
    # Where the corners of the warped image lie in the original.
    corners = np.array([[0, 0], [w - 1, 0], [w - 1, h - 1], [0, h - 1]], np.float64)
    centre = corners.mean(0)
    angle = np.radians(rng.uniform(-s.turn, s.turn))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    zoom = s.scale ** -rng.random()
    spare = (1 - zoom) * np.array([w, h]) / 2
    moved = (corners - centre) @ turn.T * zoom + centre + rng.uniform(-1, 1, 2) * spare
    moved += rng.normal(0, s.corner * side, (4, 2))
    H = cv2.getPerspectiveTransform(corners.astype(np.float32), moved.astype(np.float32))
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    z = H[2, 0] * x + H[2, 1] * y + H[2, 2]
    position = np.stack(
        [(H[0, 0] * x + H[0, 1] * y + H[0, 2]) / z, (H[1, 0] * x + H[1, 1] * y + H[1, 2]) / z], -1
    )
    position += thin_plate(h, w, s.controls, s.bend * side, rng)
    field = position.astype(np.float32)
    warped = cv2.remap(rgb, field[..., 0], field[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return WarpedPair(rgb, _other_light(warped, rng, s), field)


def thin_plate(
    height: int, width: int, controls: int, amount: float, rng: np.random.Generator
) -> Float[np.ndarray, "h w 2"]:
    """A thin plate spline through random offsets at a grid of control points.

    Args:
        amount: standard deviation of the offsets, in pixels.
    """
    ys, xs = np.meshgrid(
        np.linspace(0, height - 1, controls), np.linspace(0, width - 1, controls), indexing="ij"
    )
    points = np.stack([xs.ravel(), ys.ravel()], 1)
    values = rng.normal(0, amount, points.shape)
    side = float(max(height, width))
    nodes = points / side

    def kernel(squared: np.ndarray) -> np.ndarray:
        return np.where(squared > 0, squared * np.log(np.maximum(squared, 1e-300)), 0.0)

    n = len(nodes)
    system = np.zeros((n + 3, n + 3))
    system[:n, :n] = kernel(((nodes[:, None] - nodes[None]) ** 2).sum(-1))
    system[:n, n:] = np.column_stack([np.ones(n), nodes])
    system[n:, :n] = system[:n, n:].T
    weights = np.linalg.solve(system, np.concatenate([values, np.zeros((3, 2))]))
    y, x = np.mgrid[0:height, 0:width] / side
    out = weights[n] + x[..., None] * weights[n + 1] + y[..., None] * weights[n + 2]
    for node, weight in zip(nodes, weights[:n], strict=True):
        out += kernel((x - node[0]) ** 2 + (y - node[1]) ** 2)[..., None] * weight
    return np.asarray(out)


def _other_light(
    rgb: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator, s: WarpSettings
) -> UInt8[np.ndarray, "h w 3"]:
    gain = (1 + rng.uniform(-s.contrast, s.contrast)) * (1 + rng.uniform(-s.colour, s.colour, 3))
    shift = 255 * rng.uniform(-s.brightness, s.brightness)
    values = (rgb.astype(np.float32) - 128) * gain.astype(np.float32) + np.float32(128 + shift)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def visible_positions(
    depth_a: Float32[np.ndarray, "ha wa"],
    depth_b: Float32[np.ndarray, "hb wb"],
    a: Camera,
    b: Camera,
    *,
    tolerance: float = 0.02,
) -> Float32[np.ndarray, "ha wa 2"]:
    """Locate each pixel of view A in view B; NaN where its depth is unknown or B does not see it.

    Args:
        depth_a, depth_b: z-depth, 0 where unknown.
        a, b: pinhole cameras of the sizes of the depth maps.
        tolerance: B sees a point if its own depth there is as large, up to this share.
    """
    h, w = depth_a.shape
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(a.K).T
    world = (rays * depth_a[..., None] - a.cam_from_world[:, 3]) @ a.cam_from_world[:, :3]
    camera = world @ b.cam_from_world[:, :3].T + b.cam_from_world[:, 3]
    z = camera[..., 2]
    pixels = camera @ b.K.T
    with np.errstate(divide="ignore", invalid="ignore"):
        position = pixels[..., :2] / pixels[..., 2:]
    hb, wb = depth_b.shape
    inside = (depth_a > 0) & (z > 0) & np.isfinite(position).all(-1)
    safe = np.where(inside[..., None], position, -1)
    inside &= (safe >= 0).all(-1) & (safe[..., 0] <= wb - 1) & (safe[..., 1] <= hb - 1)
    column, row = (np.where(inside, np.rint(safe[..., k]), 0).astype(np.int64) for k in range(2))
    inside &= np.abs(depth_b[row, column] - z) <= tolerance * np.abs(z)
    return np.where(inside[..., None], position, np.nan).astype(np.float32)
