"""Metrics of semantic correspondence: PCK, label transfer accuracy and IoU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from jaxtyping import Bool, Float

from recon.errors import UsageError


@dataclass(frozen=True)
class PairScore:
    """Scores of one pair.

    Attributes:
        category: of its object.
        pck: share of correct keypoints at each alpha; empty without keypoints.
        label_accuracy, iou: of the transferred mask; None without masks.
        seconds: that matching took.
        layers: that were selected.
        variation: what the benchmark says of the pair (SPair-71k): a level of each kind of difficulty.
    """

    category: str
    pck: Mapping[float, float]
    label_accuracy: float | None = None
    iou: float | None = None
    seconds: float = 0.0
    layers: tuple[int, ...] = ()
    variation: Mapping[str, int] = field(default_factory=dict)


VARIATIONS: dict[str, tuple[str, ...]] = {
    "viewpoint_variation": ("easy", "medium", "hard"),
    "scale_variation": ("easy", "medium", "hard"),
    "truncation": ("none", "source", "target", "both"),
    "occlusion": ("none", "source", "target", "both"),
}
"""Kinds of difficulty of SPair-71k's pairs, and the names of their levels, from 0."""


def pck(
    predicted: Float[np.ndarray, "n 2"], truth: Float[np.ndarray, "n 2"], length: float, alpha: float = 0.1
) -> float:
    """Share of keypoints at most ``alpha * length`` from the truth.

    Args:
        length: the longer side of the target's image or bounding box, in the pixels of the points.

    Raises:
        UsageError: there is no keypoint, or the length is not positive.
    """
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    if predicted.shape != truth.shape or len(truth) == 0:
        raise UsageError(f"PCK of {predicted.shape} predicted and {truth.shape} true keypoints")
    if not length > 0:
        raise UsageError(f"PCK needs a positive length, not {length}")
    return float((np.linalg.norm(predicted - truth, axis=1) <= alpha * length).mean())


def reference_length(
    threshold: str,
    image: tuple[int, int],
    box: tuple[float, float, float, float] | None,
    truth: Float[np.ndarray, "n 2"],
) -> float:
    """The length that alpha is a share of, in pixels of the target.

    Args:
        threshold: "image", "box", or "padded-box": the box round the true points and (-1, -1), with which DHPF's
            release pads its lists on PF-WILLOW. It is larger than the object by its distance from the corner.
        image: width and height of the target.
        box: of its object; None for the box round its keypoints.
    """
    if threshold == "image":
        return float(max(image))
    if threshold == "padded-box":
        return float(np.ptp(np.vstack([truth, [[-1.0, -1.0]]]), axis=0).max())
    if threshold != "box":
        raise UsageError(f"PCK is by 'image', 'box' or 'padded-box', not by {threshold!r}")
    if box is not None:
        return float(max(box[2] - box[0], box[3] - box[1]))
    return float(np.ptp(truth, axis=0).max())


def mask_of_outline(
    outline: Float[np.ndarray, "n 2"], width: int, height: int
) -> Bool[np.ndarray, "height width"]:
    """True inside a polygon (x, y); what lies outside of the image is cut."""
    mask = np.zeros((height, width), np.uint8)
    # Sixteenths of a pixel; far corners are kept where OpenCV's numbers reach.
    corners = np.clip(np.rint(np.asarray(outline, np.float64) * 16), -(1 << 20), 1 << 20).astype(np.int32)
    cv2.fillPoly(mask, [corners.reshape(-1, 1, 2)], 1, shift=4)
    return mask.astype(bool)


def label_transfer_accuracy(predicted: Bool[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"]) -> float:
    """Share of pixels, of object and background, that have the right label."""
    return float((predicted == truth).mean())


def intersection_over_union(predicted: Bool[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"]) -> float:
    """Intersection over union of two masks; 1 for two empty ones."""
    union = int((predicted | truth).sum())
    return float((predicted & truth).sum() / union) if union else 1.0


@dataclass(frozen=True)
class SemanticReport:
    """Scores of all pairs of a benchmark."""

    benchmark: str
    method: str
    scores: tuple[PairScore, ...]

    def mean_pck(self, alpha: float = 0.1, category: str | None = None) -> float:
        """Mean PCK over pairs (of one class); NaN without any."""
        values = [s.pck[alpha] for s in self.scores if alpha in s.pck and category in (None, s.category)]
        return float(np.mean(values)) if values else float("nan")

    def selection_rates(self) -> dict[int, float]:
        """Share of all pairs in which each layer was selected."""
        counts: dict[int, int] = {}
        for score in self.scores:
            for layer in score.layers:
                counts[layer] = counts.get(layer, 0) + 1
        return {layer: counts[layer] / len(self.scores) for layer in sorted(counts)}

    def breakdown(self, alpha: float = 0.1) -> dict[str, dict[str, tuple[int, float]]]:
        """Number of pairs and mean PCK by kind of difficulty and level; empty where the benchmark tells none."""
        found: dict[str, dict[str, tuple[int, float]]] = {}
        for kind, names in VARIATIONS.items():
            for level, name in enumerate(names):
                values = [s.pck[alpha] for s in self.scores if s.variation.get(kind) == level]
                if values:
                    found.setdefault(kind, {})[name] = len(values), float(np.mean(values))
        return found

    def _by_variation(self, alphas: Sequence[float]) -> list[str]:
        parts = [self.breakdown(alpha) for alpha in alphas]
        lines = []
        for kind in parts[0] if parts else ():
            for name, (count, _) in parts[0][kind].items():
                values = "  ".join(f"{part[kind][name][1]:8.3f}" for part in parts)
                lines.append(f"{kind.removesuffix('_variation')}, {name}: {count} pairs  {values}")
        return lines

    def text(self) -> str:
        """The paper's table: each class, the mean over pairs, milliseconds per pair, selected layers."""
        if not self.scores:
            raise UsageError(f"{self.benchmark}: no pair was evaluated")
        alphas = sorted({alpha for score in self.scores for alpha in score.pck})
        masks = [s for s in self.scores if s.iou is not None]
        heads = [f"PCK@{alpha:g}" for alpha in alphas] + (["LT-ACC", "IoU"] if masks else [])
        lines = [f"{self.benchmark}: {self.method}, {len(self.scores)} pairs"]
        rows: list[tuple[str, int, list[float]]] = []
        for category in (*sorted({s.category for s in self.scores}), None):
            chosen = [s for s in self.scores if category in (None, s.category)]
            values = [_mean([s.pck[alpha] for s in chosen if alpha in s.pck]) for alpha in alphas]
            if masks:
                values.append(_mean([s.label_accuracy for s in chosen if s.label_accuracy is not None]))
                values.append(_mean([s.iou for s in chosen if s.iou is not None]))
            rows.append((category or "all pairs", len(chosen), values))
        wide = max(len(name) for name, _, _ in rows)
        lines.append(f"{'':{wide}}  pairs  " + "  ".join(f"{head:>8}" for head in heads))
        for name, count, values in rows:
            lines.append(f"{name:{wide}}  {count:5d}  " + "  ".join(f"{value:8.3f}" for value in values))
        lines += self._by_variation(alphas)
        times = [s.seconds for s in self.scores]
        lines.append(
            f"milliseconds per pair: median {1000 * float(np.median(times)):.0f}, "
            f"{1000 * min(times):.0f} to {1000 * max(times):.0f}"
        )
        rates = self.selection_rates()
        if rates:
            mean = float(np.mean([len(s.layers) for s in self.scores]))
            shares = "  ".join(f"{layer}: {rate:.0%}" for layer, rate in rates.items())
            lines.append(f"layers selected: {mean:.1f} per pair;  {shares}")
        return "\n".join(lines)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
