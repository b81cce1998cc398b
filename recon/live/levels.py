"""Level of detail: a cloud in blocks of neighbouring points, of which each shows as many as a view needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int32, Int64

from recon.core.kernels import kernel, maximum, minimum
from recon.core.mesh import PointCloud

# So many points at most are in a block, about: a few hundred blocks are quickly drawn and quickly chosen from.
BLOCK = 40_000

# The planes between blocks are medians of so many points.
_SAMPLE = 200_000

# More points than this on a pixel add nothing that can be seen.
_PER_PIXEL = 4.0


@dataclass(frozen=True)
class Blocks:
    """A cloud in blocks; any number of a block's first points is a fair sample of it.

    Attributes:
        cloud: the points.
        order: rows of the points, block after block, in random order within each.
        starts: (b + 1,) where each block begins in ``order``, and the end.
        low, high: (b, 3) corners of the blocks' boxes.
    """

    cloud: PointCloud
    order: Int32[np.ndarray, " n"]
    starts: Int64[np.ndarray, " b1"]
    low: Float32[np.ndarray, "b 3"]
    high: Float32[np.ndarray, "b 3"]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def counts(self) -> Int64[np.ndarray, " b"]:
        """Points of each block."""
        return np.diff(self.starts)

    @property
    def centers(self) -> Float32[np.ndarray, "b 3"]:
        """Middles of the boxes."""
        return (self.low + self.high) / 2

    @property
    def radii(self) -> Float32[np.ndarray, " b"]:
        """Half the boxes' diagonals."""
        return np.linalg.norm(self.high - self.low, axis=1).astype(np.float32) / 2

    @property
    def spacings(self) -> Float[np.ndarray, " b"]:
        """About how far apart the points of a block are, as if they lay on a surface across its box."""
        sides = np.sort(self.high - self.low, axis=1).astype(np.float64)
        return np.sqrt(np.maximum(sides[:, 1], sides[:, 2] * 0.05) * sides[:, 2] / np.maximum(self.counts, 1))

    def part(self, block: int, first: int, last: int) -> PointCloud:
        """Points of a block, from the first up to the last."""
        start = int(self.starts[block])
        return self.cloud.rows(self.order[start + first : start + last])

    def shares(self, share: float) -> Int64[np.ndarray, " b"]:
        """So many points of each block, at least one of each that has any."""
        return np.minimum(np.ceil(self.counts * share), self.counts).astype(np.int64)


@dataclass(frozen=True)
class Eye:
    """The camera of a browser.

    Attributes:
        center: in the scene. axis: unit vector, where to. fov: vertical, radians.
        width, height: of the picture, pixels.
    """

    center: Float[np.ndarray, "3"]
    axis: Float[np.ndarray, "3"]
    fov: float
    width: int
    height: int


def build_blocks(cloud: PointCloud, block: int = BLOCK, seed: int = 0) -> Blocks:
    """Cut a cloud at medians of its widest extent until the blocks are small, and shuffle each."""
    n = len(cloud)
    depth = max(0, int(np.ceil(np.log2(max(n, 1) / block))))
    rng = np.random.default_rng(seed)
    sample = cloud.xyz[rng.integers(0, n, min(n, _SAMPLE))] if n else cloud.xyz
    axes, planes = _planes(sample, depth)
    order, counts, low, high = _arrange(np.ascontiguousarray(cloud.xyz), axes, planes, depth, rng)
    some = counts > 0  # blocks without points go
    starts = np.concatenate([[0], np.cumsum(counts[some])]).astype(np.int64)
    return Blocks(cloud, order, starts, low[some], high[some])


def choose(blocks: Blocks, eye: Eye, budget: int, least: float = 0.0) -> Int64[np.ndarray, " b"]:
    """Choose the number of points to show of each block: as many per pixel everywhere, and the budget in all.

    Blocks out of sight show their least share. Numbers are halves of halves of the blocks, so that a small
    movement changes few of them.

    Args:
        budget: of points in all.
        least: share of every block that is shown anyway.
    """
    counts = blocks.counts
    floor = blocks.shares(least)
    if counts.sum() <= budget:
        return counts
    toward = blocks.centers.astype(np.float64) - eye.center
    distance = np.linalg.norm(toward, axis=1)
    radii = np.maximum(blocks.radii.astype(np.float64), 1e-12)
    half = np.arctan(np.tan(eye.fov / 2) * np.hypot(1.0, eye.width / max(eye.height, 1)))
    angle = np.arccos(np.clip(toward @ eye.axis / np.maximum(distance, 1e-12), -1, 1))
    reach = np.arcsin(np.clip(radii / np.maximum(distance, 1e-12), 0, 1))
    seen = (angle - reach < half) | (distance < radii)
    focal = eye.height / 2 / np.tan(eye.fov / 2)
    pixels = (focal * radii / np.maximum(distance, radii / 2)) ** 2
    wanted = np.where(seen, pixels, 0.0)

    def shown(density: float) -> Int64[np.ndarray, " b"]:
        share = np.clip(density * wanted / counts, 0.0, 1.0)
        halves = np.where(share > 0, np.exp2(np.floor(np.log2(np.maximum(share, 1e-9)))), 0.0)
        return np.maximum(floor, np.minimum(np.ceil(counts * halves), counts)).astype(np.int64)

    low, high = 0.0, _PER_PIXEL
    if shown(high).sum() <= budget:
        return shown(high)
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if shown(middle).sum() <= budget else (low, middle)
    return shown(low)


def precision_of(extent: float, spacing: float) -> str:
    """Number format in which a block travels: half precision where it moves points by less than a tenth of their
    spacing ("float16"), else "float32".

    Args:
        extent: largest distance of a coordinate from the block's middle; half precision has 11 bits.
    """
    return "float16" if extent * 2.0**-12 < 0.1 * spacing and extent < 6e4 and spacing > 1e-4 else "float32"


def _planes(sample: Float32[np.ndarray, "n 3"], depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Axis and position of the plane of every inner node of the tree, node after node from the root."""
    inner = (1 << depth) - 1
    axes, planes = np.zeros(inner, np.int64), np.zeros(inner, np.float32)
    parts = [sample]
    for level in range(depth):
        children = []
        for number, points in enumerate(parts):
            node = (1 << level) - 1 + number
            if len(points):
                low, high = np.percentile(points, [2, 98], axis=0)
                axes[node] = int(np.argmax(high - low))
                planes[node] = np.median(points[:, axes[node]])
            below = points[:, axes[node]] <= planes[node]
            children += [points[below], points[~below]]
        parts = children
    return axes, planes


@kernel()
def _arrange(xyz, axes, planes, depth, rng):  # type: ignore[no-untyped-def]
    """Rows of the points leaf after leaf, shuffled within each, and the leaves' sizes and boxes."""
    n, leaves = len(xyz), 1 << depth
    leaf = np.empty(n, np.uint16)
    counts = np.zeros(leaves, np.int64)
    low = np.full((leaves, 3), np.inf, np.float32)
    high = np.full((leaves, 3), -np.inf, np.float32)
    for i in range(n):
        node = 0
        for _ in range(depth):
            node = 2 * node + (1 if xyz[i, axes[node]] <= planes[node] else 2)
        one = node - (leaves - 1)
        leaf[i] = one
        counts[one] += 1
        for k in range(3):
            low[one, k] = minimum(low[one, k], xyz[i, k])
            high[one, k] = maximum(high[one, k], xyz[i, k])
    ends = np.cumsum(counts)
    places = ends - counts
    order = np.empty(n, np.int32)
    for i in range(n):
        order[places[leaf[i]]] = i
        places[leaf[i]] += 1
    for one in range(leaves):
        first = ends[one] - counts[one]
        for i in range(counts[one] - 1, 0, -1):
            j = rng.integers(0, i + 1)
            order[first + i], order[first + j] = order[first + j], order[first + i]
    return order, counts, low, high
