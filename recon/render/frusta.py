"""Photos drawn where they were taken."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

from recon.core.cameras import PinholeView
from recon.render.canvas import Surface


def camera_lines(view: PinholeView, size: float) -> Float64[np.ndarray, "8 2 3"]:
    """Make the edges of a camera's pyramid in the world: four rays to the corners and the frame, ``size`` deep."""
    corners = _frame_corners(view, size)
    edges = [(view.center, corner) for corner in corners]
    edges += [(corners[i], corners[(i + 1) % 4]) for i in range(4)]
    return np.array(edges)


def photo_corners(view: PinholeView, depth: float) -> Float64[np.ndarray, "4 3"]:
    """Compute the corners of a photo in its camera's axes: top left, top right, bottom right, bottom left."""
    right, bottom = view.width - 0.5, view.height - 0.5
    pixels = np.array([[-0.5, -0.5, 1], [right, -0.5, 1], [right, bottom, 1], [-0.5, bottom, 1]])
    return np.asarray(pixels @ np.linalg.inv(view.K).T * depth)


def _frame_corners(view: PinholeView, depth: float) -> Float64[np.ndarray, "4 3"]:
    """The same corners in the world."""
    return np.asarray((photo_corners(view, depth) - view.cam_from_world[:, 3]) @ view.cam_from_world[:, :3])


def frustum_size(views: Sequence[PinholeView], distance: float) -> float:
    """Choose how deep to draw cameras: half the way to the next one, at most a tenth of the distance to the subject."""
    centers = np.array([view.center for view in views])
    if len(centers) < 2:
        return 0.1 * distance
    gap = np.linalg.norm(centers[:, None] - centers[None], axis=2)
    np.fill_diagonal(gap, np.inf)
    return float(np.clip(0.5 * np.median(gap.min(axis=1)), 0.02 * distance, 0.1 * distance))


def photo_frames(
    views: Sequence[PinholeView], photos: Sequence[UInt8[np.ndarray, "_ _ 3"]], size: float, cell: int = 256
) -> Surface:
    """Make a surface of the photos themselves, each standing in its camera's frame.

    Args:
        views, photos: one each, of any size.
        size: how far in front of the camera.
        cell: texels along a photo's longer side.
    """
    columns = int(np.ceil(np.sqrt(len(photos))))
    texture = np.zeros((-(-len(photos) // columns) * cell, columns * cell, 3), np.uint8)
    h, w = texture.shape[:2]
    vertices, uv, faces = [], [], []
    for index, (view, photo) in enumerate(zip(views, photos, strict=True)):
        top, left = index // columns * cell, index % columns * cell
        texture[top : top + cell, left : left + cell] = cv2.resize(
            photo, (cell, cell), interpolation=cv2.INTER_AREA
        )
        vertices.append(_frame_corners(view, size))
        # Half a texel inwards: no look-up reaches into the next photo.
        a, b, c, d = left + 0.5, top + 0.5, left + cell - 0.5, top + cell - 0.5
        uv.append([[a / w, 1 - b / h], [c / w, 1 - b / h], [c / w, 1 - d / h], [a / w, 1 - d / h]])
        faces += [[4 * index, 4 * index + 1, 4 * index + 2], [4 * index, 4 * index + 2, 4 * index + 3]]
    return Surface(
        np.concatenate(vertices).astype(np.float32),
        np.array(faces, np.int32),
        uv=np.concatenate(uv).astype(np.float32),
        texture=texture,
    )
