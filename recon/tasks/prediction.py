"""Photos predicted from the depth maps of the others, as a figure of the verdict after densification."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from recon.dense.types import DepthMap
from recon.evaluation.views import compare_view, predict_from_cloud
from recon.run.dense_scene import DenseScene

# So many photos are predicted, spread over all of them, at this size at most (longest side in pixels): half a second
# each, whatever the size of the photos.
_PHOTOS = 6
_SIZE = 480
# Pixels this near (half of it) to what is not predicted do not count, as in SSIM's windows.
_MARGIN = 11


class Prediction(NamedTuple):
    """Of one photo: SSIM, median displacement in pixels, and covered share of the pixels."""

    ssim: float
    pixels: float
    share: float


def photos_to_predict(count: int) -> list[int]:
    """Which of so many photos are predicted, spread over all of them."""
    return np.unique(np.rint(np.linspace(0, count - 1, _PHOTOS)).astype(int)).tolist()


def prediction_figures(told: Sequence[Prediction | None]) -> dict[str, Any]:
    """How well photos are predicted from the depth and colours of others. Empty where nothing can be predicted.

    Medians over the photos: ``prediction`` (likeness, SSIM, at most 1), ``prediction_px`` (distance of what the photo
    shows from where it was predicted, pixels of photos of ``_SIZE``; ``worst_prediction_px`` of the worst photo),
    ``predicted_share`` of the pixels.
    """
    found = [one for one in told if one is not None]
    if not found:
        return {}
    ssim, pixels, share = zip(*found, strict=True)
    return {
        "prediction": round(float(np.median(ssim)), 3),
        "prediction_px": round(float(np.median(pixels)), 3),
        "worst_prediction_px": round(max(pixels), 3),
        "predicted_share": round(float(np.median(share)), 3),
    }


def predicted_photo(
    scene: DenseScene, index: int, sources: Sequence[int], depth_of: Callable[[int], DepthMap]
) -> Prediction | None:
    """A photo compared with what others say of it; None where they say nothing.

    The photo's own depth and colours are not used, its camera is.

    Args:
        sources: indices of the views that predict it.
        depth_of: depth map of a view, by index.
    """
    parts = [_coloured_points(scene, source, depth_of(source).depth) for source in sources]
    if not sum(len(xyz) for xyz, _ in parts):
        return None
    size = _small(scene, index)
    xyz, rgb = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    picture, covered = predict_from_cloud(xyz, rgb, scene.views[index].resized(*size))
    covered &= cv2.resize(scene.masks[index].astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    photo = _resized(scene.images[index], size)
    report = compare_view(picture, covered, photo)
    whole = cv2.erode(covered.astype(np.uint8), np.ones((_MARGIN, _MARGIN), np.uint8)) > 0
    if not whole.any():
        return None
    # What is not predicted is as in the photo: its edge is no edge.
    filled = np.where(covered[..., None], np.clip(picture * np.array(report.gain), 0, 255), photo).astype(
        np.uint8
    )
    greys = [cv2.cvtColor(one, cv2.COLOR_RGB2GRAY) for one in (filled, photo)]
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(greys[0], greys[1], None)
    return Prediction(report.ssim, float(np.median(np.linalg.norm(flow, axis=2)[whole])), report.coverage)


def _small(scene: DenseScene, index: int) -> tuple[int, int]:
    view = scene.views[index]
    factor = min(1.0, _SIZE / max(view.width, view.height))
    return max(1, round(view.width * factor)), max(1, round(view.height * factor))


def _resized(image: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h2 w2 3"]:
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _coloured_points(
    scene: DenseScene, index: int, depth: Float32[np.ndarray, "h w"]
) -> tuple[Float64[np.ndarray, "n 3"], UInt8[np.ndarray, "n 3"]]:
    """World points and colours of a view's pixels with a depth, at the size of predictions."""
    size = _small(scene, index)
    view = scene.views[index].resized(*size)
    z = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST)
    known: Bool[np.ndarray, "h w"] = z > 0
    rows, columns = np.nonzero(known)
    rays = np.stack([columns, rows, np.ones(len(rows))], axis=1) @ np.linalg.inv(view.K).T
    local = rays * z[known][:, None]
    xyz = (local - view.cam_from_world[:, 3]) @ view.cam_from_world[:, :3]
    return xyz, _resized(scene.images[index], size)[known]
