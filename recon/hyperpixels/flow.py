"""A dense flow field from matches of cells: consensus of neighbours, then coarse to fine on larger images."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from recon.hyperpixels.cells import CellMatches
from recon.hyperpixels.correlation import Hyperpixels
from recon.hyperpixels.grid import Grid

CONSENSUS_SIGMA = 1.5
"""Cells over which offsets are averaged, weighted by confidence."""

LOCAL_RADIUS = 2
"""Cells round the coarser level's flow that a finer level searches."""

LOCAL_SHARPNESS = 30.0
"""Cosines are sharpened by exp(LOCAL_SHARPNESS * cosine) in the soft argmax of a finer level."""


def agreed_offsets(there: CellMatches, back: CellMatches) -> Float32[np.ndarray, "rows columns 2"]:
    """Offsets of cells (pixels) with those replaced that neither the way back nor the neighbours confirm.

    A cell weighs by its confidence and by how close its round trip ends. Offsets are averaged with weights that
    fall off as a Gaussian of ``CONSENSUS_SIGMA`` cells; where all weights there are negligible, of a wider one.
    """
    step = there.source.step
    rows, columns = there.confidence.shape
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    at_x, at_y = x + there.offset[..., 0] / step, y + there.offset[..., 1] / step
    returned = cv2.remap(back.offset, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    error = np.linalg.norm(there.offset + returned, axis=-1) / step
    scale = float(np.quantile(there.confidence, 0.9)) + 1e-30
    weight = np.minimum(there.confidence / scale, 1) / (1 + error**4)
    # Agreement with the median of the neighbours, 1 or more cells off counts little.
    median = np.dstack([cv2.medianBlur(np.ascontiguousarray(there.offset[..., k]), 5) for k in range(2)])
    weight = (weight / (1 + (np.linalg.norm(there.offset - median, axis=-1) / step) ** 4)).astype(np.float32)
    weight += np.float32(1e-9)
    out = np.zeros_like(there.offset)
    filled = np.zeros((rows, columns), np.float32)
    sigma = CONSENSUS_SIGMA
    while True:
        total = cv2.GaussianBlur(weight, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
        mean = (
            np.dstack(
                [
                    cv2.GaussianBlur(
                        weight * there.offset[..., k], (0, 0), sigma, borderType=cv2.BORDER_CONSTANT
                    )
                    for k in range(2)
                ]
            )
            / np.maximum(total, 1e-30)[..., None]
        )
        # Trust in this width, the rest is left to wider ones.
        share = (1 - filled) * np.minimum(total / 0.05, 1)
        if sigma > max(rows, columns):
            share = 1 - filled
        out += share[..., None] * mean
        filled += share
        if float(filled.min()) > 1 - 1e-6:
            return out.astype(np.float32)
        sigma *= 2


def unit_displacement(
    offsets: Float32[np.ndarray, "rows columns 2"], source: Grid, target: Grid
) -> Float32[np.ndarray, "rows columns 2"]:
    """Offsets of cells as differences of positions in units of each image's own size.

    A position (x + 0.5) / width is the same at every size of an image; so is this field, except for its sampling.
    """
    x, y = cell_positions(source)
    out = np.empty_like(offsets)
    out[..., 0] = (x + offsets[..., 0] + 0.5) / target.width - (x + 0.5) / source.width
    out[..., 1] = (y + offsets[..., 1] + 0.5) / target.height - (y + 0.5) / source.height
    return out


def pixel_offsets(
    displacement: Float32[np.ndarray, "rows columns 2"], source: Grid, target: Grid
) -> Float32[np.ndarray, "rows columns 2"]:
    """The inverse of ``unit_displacement``."""
    x, y = cell_positions(source)
    out = np.empty_like(displacement)
    out[..., 0] = ((x + 0.5) / source.width + displacement[..., 0]) * target.width - 0.5 - x
    out[..., 1] = ((y + 0.5) / source.height + displacement[..., 1]) * target.height - 0.5 - y
    return out


def resample(
    displacement: Float32[np.ndarray, "rows columns 2"], old: Grid, new: Grid
) -> Float32[np.ndarray, "rows2 columns2 2"]:
    """A field of the cells of one size of an image at the cells of another, linear between cells."""
    x = ((np.arange(new.columns) * new.step + 0.5) / new.width * old.width - 0.5) / old.step
    y = ((np.arange(new.rows) * new.step + 0.5) / new.height * old.height - 0.5) / old.step
    grid_x, grid_y = np.meshgrid(
        np.clip(x, 0, old.columns - 1).astype(np.float32), np.clip(y, 0, old.rows - 1).astype(np.float32)
    )
    field = np.ascontiguousarray(displacement, np.float32)
    return np.asarray(
        cv2.remap(field, grid_x, grid_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32
    )


def cell_positions(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """x and y of every cell in pixels, each (rows, columns) float32."""
    y, x = np.mgrid[0 : grid.rows, 0 : grid.columns].astype(np.float32)
    return x * grid.step, y * grid.step


AGGREGATE = 2
"""Cells to each side over which cosines of a finer level are averaged."""


@torch.no_grad()
def refine_offsets(
    source: Hyperpixels,
    target: Hyperpixels,
    offsets: Float32[np.ndarray, "rows columns 2"],
    *,
    radius: int = LOCAL_RADIUS,
    aggregate: int = AGGREGATE,
) -> Float32[np.ndarray, "rows columns 2"]:
    """Offsets of a finer grid, searched for round given ones.

    The target's hyperpixels are warped by the given offsets once; then each source cell is compared with the warped
    cells round it. A cell o away in the warped target stands for the offset o + offsets[p + o], so that nothing is
    approximated where the given offsets vary. Cosines are averaged over ``2 * aggregate + 1`` cells each way.

    Args:
        offsets: in pixels, at the source's cells.
    """
    step = source.grid.step
    rows, columns = source.grid.rows, source.grid.columns
    device = next(iter(source.layers.values())).device
    field = torch.from_numpy(np.ascontiguousarray(offsets)).to(device)
    y, x = torch.meshgrid(
        torch.arange(rows, device=device, dtype=torch.float32),
        torch.arange(columns, device=device, dtype=torch.float32),
        indexing="ij",
    )
    at_x, at_y = x + field[..., 0] / step, y + field[..., 1] / step
    span_x, span_y = max(target.grid.columns - 1, 1), max(target.grid.rows - 1, 1)
    where = torch.stack([2 * at_x / span_x - 1, 2 * at_y / span_y - 1], -1)[None]
    side = 2 * radius + 1
    cost = torch.zeros(side * side, rows, columns, device=device)
    norm_source = torch.zeros(rows, columns, device=device)
    norm_warped = torch.zeros(rows, columns, device=device)
    for stride in source.layers:
        a = source.grid.sample(source.layers[stride], stride)[0]
        b = target.grid.sample(target.layers[stride], stride)
        warped = F.grid_sample(b, where, mode="bilinear", padding_mode="border", align_corners=True)[0]
        norm_source += a.square().sum(0)
        norm_warped += warped.square().sum(0)
        padded = F.pad(warped[None], (radius,) * 4, mode="replicate")[0]
        for k in range(side * side):
            dy, dx = divmod(k, side)
            cost[k] += (a * padded[:, dy : dy + rows, dx : dx + columns]).sum(0)
    padded_norm = F.pad(norm_warped[None, None], (radius,) * 4, mode="replicate")[0, 0]
    for k in range(side * side):
        dy, dx = divmod(k, side)
        own = padded_norm[dy : dy + rows, dx : dx + columns]
        cost[k] /= (norm_source * own).clamp(min=1e-12).sqrt()
    if aggregate:
        size = 2 * aggregate + 1
        cost = F.avg_pool2d(cost[:, None], size, 1, aggregate, count_include_pad=False)[:, 0]
    move = _centre_of_mass(cost, radius)
    # p + o read in the field that warped the target.
    new_x, new_y = x + move[0], y + move[1]
    there = torch.stack([2 * new_x / max(columns - 1, 1) - 1, 2 * new_y / max(rows - 1, 1) - 1], -1)[None]
    base = F.grid_sample(
        field.permute(2, 0, 1)[None], there, mode="bilinear", padding_mode="border", align_corners=True
    )[0]
    result = (base + step * move).cpu().numpy()
    # Single cells that jumped to another peak follow their neighbours.
    medians = [cv2.medianBlur(np.ascontiguousarray(result[k], np.float32), 5) for k in range(2)]
    return np.ascontiguousarray(np.stack(medians, -1))


def _centre_of_mass(cost: Tensor, radius: int) -> Tensor:
    """(2, rows, columns): soft argmax over the 3×3 labels round the best one, in cells."""
    side = 2 * radius + 1
    best = cost.argmax(0)
    by, bx = best // side, best % side
    peak = cost.gather(0, best[None])[0]
    total = torch.zeros_like(peak)
    sums = torch.zeros(2, *peak.shape, device=peak.device)
    room_x = torch.minimum(bx, side - 1 - bx)
    room_y = torch.minimum(by, side - 1 - by)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            inside = (abs(dx) <= room_x) & (abs(dy) <= room_y)
            label = (by + dy).clamp(0, side - 1) * side + (bx + dx).clamp(0, side - 1)
            weight = torch.exp(LOCAL_SHARPNESS * (cost.gather(0, label[None])[0] - peak)) * inside
            total += weight
            sums[0] += weight * dx
            sums[1] += weight * dy
    return torch.stack([bx - radius + sums[0] / total, by - radius + sums[1] / total])
