"""The even background of a photo: a studio's black cloth, a white table, a clear sky."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

# An even background reaches the border along half of it at least, and has a share of the photo between these (a blank
# wall that fills the photo is no background); its colour differs from that of the border by no more than this (of 255,
# any channel; medians of 5 x 5 pixels): what has any texture of its own differs by more.
_BORDER_SHARE = 0.5
_AREA_SHARE = (0.2, 0.95)
_TOLERANCE = 5
_BORDER = 3
# Of the thing before it so much lies further than a patch reaches from its outline: a plant, a wire has little else.
_INNER_SHARE = 0.5


def even_background(rgb: UInt8[np.ndarray, "h w 3"], reach: float = 0.0) -> Bool[np.ndarray, "h w"]:
    """True where a photo shows an even background that reaches its border; nowhere if it has none.

    The outline of a smooth thing before it is no place on the thing: it moves over the surface with the camera, and it
    is the strongest edge for any comparison of patches.

    Args:
        reach: half the side of the patches, pixels. Things too thin for most of these are left with their outlines.
    """
    near = np.abs(cv2.medianBlur(rgb, 5).astype(np.int16) - _border_colour(rgb)).max(axis=2) <= _TOLERANCE
    nothing = np.zeros(near.shape, np.bool_)
    if _border(near).mean() < _BORDER_SHARE:
        return nothing
    _, region = cv2.connectedComponents(near.astype(np.uint8), connectivity=4)
    touching = np.unique(_border(region)[_border(near)])
    found = near & np.isin(region, touching)
    if not _AREA_SHARE[0] <= found.mean() <= _AREA_SHARE[1]:
        return nothing
    away = cv2.distanceTransform((~found).astype(np.uint8), cv2.DIST_C, 3)[~found]
    return found if (away > reach).mean() >= _INNER_SHARE else nothing


def _border_colour(rgb: UInt8[np.ndarray, "h w 3"]) -> np.ndarray:
    return np.asarray(np.median(_border(rgb), axis=0)).astype(np.int16)


def _border(values: np.ndarray) -> np.ndarray:
    """The values of the pixels along the border."""
    inside = np.ones(values.shape[:2], np.bool_)
    inside[_BORDER:-_BORDER, _BORDER:-_BORDER] = False
    return np.asarray(values[inside])
