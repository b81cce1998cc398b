"""Two-sided consistency: which pixels come back to where they started."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32

from recon.core.kernels import kernel, maximum, minimum


def round_trip_error(
    there: Float32[np.ndarray, "ha wa 2"], back: Float32[np.ndarray, "hb wb 2"]
) -> Float32[np.ndarray, "ha wa"]:
    """Compute how far (px) the round trip leaves each pixel from its start; inf where it leaves the image.

    The way back is read between pixels by bilinear interpolation.
    """
    out = np.empty(there.shape[:2], np.float32)
    _round_trip(np.ascontiguousarray(there), np.ascontiguousarray(back), out)
    return out


def inside_border(
    flow: Float32[np.ndarray, "ha wa 2"], target: tuple[int, int], border: int
) -> Bool[np.ndarray, "ha wa"]:
    """Find pixels that are at least ``border`` pixels inside their image and whose target is so too.

    Descriptors nearer to an edge see padding. On images so small that the border would leave less than half of a side,
    it shrinks to a quarter of the shorter side.
    """
    h, w = flow.shape[:2]
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    tx, ty = x + flow[..., 0], y + flow[..., 1]
    own = min(border, min(h, w) // 4)
    other = min(border, min(target) // 4)
    ok = (x >= own) & (x <= w - 1 - own) & (y >= own) & (y <= h - 1 - own)
    ok &= (tx >= other) & (tx <= target[1] - 1 - other) & (ty >= other) & (ty <= target[0] - 1 - other)
    return np.asarray(ok)


@kernel()
def _round_trip(there, back, out):  # type: ignore[no-untyped-def]
    h, w = out.shape
    hb, wb = back.shape[0], back.shape[1]
    for y in range(h):
        for x in range(w):
            tx = np.float32(x) + there[y, x, 0]
            ty = np.float32(y) + there[y, x, 1]
            if not (tx >= 0 and tx <= wb - 1 and ty >= 0 and ty <= hb - 1):
                out[y, x] = np.inf
                continue
            x0 = minimum(np.int64(tx), maximum(wb - 2, 0))
            y0 = minimum(np.int64(ty), maximum(hb - 2, 0))
            x1 = minimum(x0 + 1, wb - 1)
            y1 = minimum(y0 + 1, hb - 1)
            fx = tx - np.float32(x0)
            fy = ty - np.float32(y0)
            ex = there[y, x, 0]
            ey = there[y, x, 1]
            ex += (1 - fy) * ((1 - fx) * back[y0, x0, 0] + fx * back[y0, x1, 0])
            ex += fy * ((1 - fx) * back[y1, x0, 0] + fx * back[y1, x1, 0])
            ey += (1 - fy) * ((1 - fx) * back[y0, x0, 1] + fx * back[y0, x1, 1])
            ey += fy * ((1 - fx) * back[y1, x0, 1] + fx * back[y1, x1, 1])
            out[y, x] = np.sqrt(ex * ex + ey * ey)
