"""Training objectives of Dynamic Hyperpixel Flow.

Source: J. Min et al., "Learning to Compose Hypercolumns for Visual Correspondence", ECCV 2020, section 3.5, with the
details of the release.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from recon.hyperpixels.cells import mutual_filter

SQUEEZE = 4
"""Correlations are brought to this many times fewer cells each way before their entropy is taken."""


@dataclass(frozen=True)
class Annotations:
    """Corresponding points of one pair as cells, and how well they are matched already.

    Attributes:
        source, target: cell nearest to each point.
        error: distance of the transferred point from the truth, in pixels.
        reach: distance below which a transferred point counts as correct.
    """

    source: Int[Tensor, " n"]
    target: Int[Tensor, " n"]
    error: Float[Tensor, " n"]
    reach: float


def strong_loss(rows: Sequence[Float[Tensor, "n nt"]], pairs: Sequence[Annotations]) -> Tensor:
    """Cross-entropy of the correlation's rows at annotated points (equations 8 and 9).

    Rows are brought to mean 0 and deviation 1 (the deviation a constant backward); points that are transferred
    correctly weigh (error / reach)², others 1. Pairs without points count as 0.

    Args:
        rows: of each pair, the correlation's row at each of its points.
    """
    losses = []
    for chosen, pair in zip(rows, pairs, strict=True):
        if len(pair.source) == 0:
            losses.append(chosen.sum() * 0)
            continue
        centred = chosen - chosen.mean(1, keepdim=True)
        with torch.no_grad():
            deviation = centred.std(1, keepdim=True)
            deviation[deviation == 0] = 1
        entropy = F.cross_entropy(centred / deviation, pair.target, reduction="none")
        weight = torch.where(
            pair.error <= pair.reach, (pair.error / pair.reach).square(), torch.ones_like(pair.error)
        )
        losses.append((weight * entropy).sum() / len(pair.source))
    return torch.stack(losses).mean()


def region_loss(rows: Sequence[Float[Tensor, "n nt"]], near: Sequence[Float[Tensor, "n nt"]]) -> Tensor:
    """Penalise rows of which little lies near the truth: minus the logarithm of that share. Ours, not the paper's.

    Rows are brought to mean 0 and deviation 1 and put through a softmax. Unlike ``strong_loss`` it does not ask for the
    one true cell, and the deviation passes its gradient on: making all rows flatter gains nothing.

    Args:
        rows: of each pair, the correlation's row at each of its points.
        near: 1 at the truth, falling to 0 away from it, for every cell of each row.
    """
    losses = []
    for chosen, weight in zip(rows, near, strict=True):
        if len(chosen) == 0:
            losses.append(chosen.sum() * 0)
            continue
        centred = chosen - chosen.mean(1, keepdim=True)
        share = (centred / centred.std(1, keepdim=True).clamp(min=1e-12)).softmax(1)
        losses.append(-((share * weight).sum(1) + 1e-6).log().mean())
    return torch.stack(losses).mean()


def weak_loss(
    correlation: Float[Tensor, "b ns nt"],
    positive: Bool[Tensor, " b"],
    source: tuple[int, int],
    target: tuple[int, int],
) -> Tensor:
    """Mean entropy of the matches of positive pairs over that of negative pairs (equation 10).

    Args:
        positive: True for pairs of one class. Without negative pairs the divisor is 1.
        source, target: rows and columns of the grids.
    """
    entropy = matching_entropy(correlation, source, target)
    below = entropy[~positive].mean() if bool((~positive).any()) else torch.ones_like(entropy[0])
    return entropy[positive].mean() / below


def matching_entropy(
    correlation: Float[Tensor, "b ns nt"], source: tuple[int, int], target: tuple[int, int]
) -> Float[Tensor, " b"]:
    """Mean entropy in bits of where each cell's matches lie, over the cells of both images."""
    filtered = mutual_filter(correlation)
    parts = []
    for matrix, size in ((filtered, target), (filtered.transpose(1, 2), source)):
        maps = matrix.reshape(matrix.shape[0], matrix.shape[1], *size)
        small = F.interpolate(
            maps,
            (max(1, size[0] // SQUEEZE), max(1, size[1] // SQUEEZE)),
            mode="bilinear",
            align_corners=True,
        ).flatten(2)
        total = small.sum(2, keepdim=True)
        share = small / torch.where(total == 0, torch.ones_like(total), total)
        share = share.clamp(min=1e-30)
        parts.append(-(share * share.log2()).sum(2).mean(1))
    return (parts[0] + parts[1]) / 2


def selection_loss(selection: Float[Tensor, "b layers"], rate: float) -> Tensor:
    """Squared distance of each layer's mean selection in the batch from the target rate, summed (equation 11)."""
    return (selection.mean(0) - rate).square().sum()
