"""The Matcher contract and what matchers exchange."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from recon.features.types import InterestPoints


@dataclass(frozen=True)
class FlowField:
    """Dense correspondence from a source image to a target.

    Attributes:
        flow: (h, w, 2) float32, target minus source: pixel p of the source lies at p + flow[p] in the target.
        confidence: (h, w) float32 in 0…1; 0 where the flow means nothing (masked or out of the target).
    """

    flow: Float32[np.ndarray, "h w 2"]
    confidence: Float32[np.ndarray, "h w"]


@dataclass(frozen=True)
class MatchDiagnostics:
    """Extras that ``recon match`` turns into pictures."""

    scale_map_a: Float32[np.ndarray, "ha wa"] | None = None
    scale_map_b: Float32[np.ndarray, "hb wb"] | None = None
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DenseMatch:
    """Both directions of one pair, with the two-sided consistency of each.

    ``consistent_a`` is True at pixels of A whose round trip a → b → a comes back within the tolerance and
    that pass the border, texture and mask rules; ``consistent_b`` likewise for B.
    """

    a_to_b: FlowField
    b_to_a: FlowField
    consistent_a: Bool[np.ndarray, "ha wa"]
    consistent_b: Bool[np.ndarray, "hb wb"]
    diagnostics: MatchDiagnostics | None = None


@dataclass(frozen=True)
class SparseMatch:
    """Point matches of one pair: xy_a[i] in A is xy_b[i] in B, with a score in 0…1 (higher is better)."""

    xy_a: Float32[np.ndarray, "n 2"]
    xy_b: Float32[np.ndarray, "n 2"]
    score: Float32[np.ndarray, " n"]


@dataclass(frozen=True)
class MatchImage:
    """One image as a matcher gets it.

    Attributes:
        rgb: (h, w, 3) uint8 at the matching size.
        mask: True where the image may be used; None for everywhere.
        points: interest points at this size, None if none were extracted.
    """

    rgb: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"] | None = None
    points: InterestPoints | None = None


@dataclass(frozen=True)
class PairContext:
    """Knowledge of a pair before it is matched.

    Attributes:
        seeds: (m, 2) indices of interest points of A and B that match each other (ratio-tested, and
            geometrically verified where that was possible); None when nobody looked.
    """

    seeds: Int[np.ndarray, "m 2"] | None = None


@dataclass(frozen=True)
class Capabilities:
    """Capabilities of a matcher, declared beside its name.

    Attributes:
        kind: what ``match`` returns, a ``DenseMatch`` or a ``SparseMatch``.
        repeatable: an image's points have the same coordinates in every pair. False for semi-dense matchers,
            whose points move from pair to pair: points that lie close to each other are then taken as one.
    """

    kind: Literal["dense", "sparse"]
    uses_interest_points: bool = False
    uses_seeds: bool = False
    devices: tuple[str, ...] = ("cpu",)
    notes: str = ""
    repeatable: bool = True


@runtime_checkable
class Matcher(Protocol):
    """A matcher: per-image preparation that all pairs of the image share, then a match per pair.

    ``prepare`` and ``match`` must be safe to call from several threads and must not keep state between calls.
    """

    name: str
    capabilities: Capabilities

    def prepare(self, image: MatchImage) -> Any:
        """Work that depends on one image alone."""
        ...

    def match(self, a: Any, b: Any, context: PairContext) -> DenseMatch | SparseMatch:
        """Match two prepared images in both directions."""
        ...
