"""SIFT Flow on Scale-less SIFT: a baseline that needs no scale for a pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from pydantic import BaseModel, Field

from recon.core.resize import resize_mask, resize_rgb, working_size
from recon.features.scaleless_sift import (
    DIMENSIONS,
    SUBSPACE,
    common_components,
    descriptors_over_scales,
    scaleless_sift,
)
from recon.matching.confidence import ConsistencySettings, finish_pair
from recon.matching.registry import built_in
from recon.matching.siftflow import SCALEMAPS, SiftFlowSettings, sift_flow
from recon.matching.subpixel import refine_flow
from recon.matching.types import DenseMatch, MatchImage, PairContext


class SlsSettings(ConsistencySettings, SiftFlowSettings):
    """Settings of SIFT Flow on Scale-less SIFT, windows as in its release."""

    window: int = Field(SCALEMAPS.window, ge=1, le=20, description="search radius at the finest level")
    top_window: int = Field(
        SCALEMAPS.top_window, ge=1, le=60, description="search radius at the coarsest level, in its pixels"
    )
    iterations: int = Field(
        SCALEMAPS.iterations, ge=1, le=500, description="half sweeps at each level but the coarsest"
    )
    top_iterations: int = Field(
        SCALEMAPS.top_iterations, ge=1, le=500, description="half sweeps at the coarsest level"
    )
    size: int = Field(
        240,
        ge=32,
        le=1024,
        description="longest side in pixels at which subspaces are compared: they are slow and large",
    )
    dimensions: int = Field(
        DIMENSIONS, ge=2, le=32, description="principal components that descriptors are reduced to"
    )
    subspace: int = Field(SUBSPACE, ge=1, le=19, description="dimension of a pixel's subspace")
    subpixel: bool = Field(True, description="refine the flow below the pixel, at the images' own size")


@dataclass(frozen=True)
class _Prepared:
    image: MatchImage
    gray: UInt8[np.ndarray, "h w"]
    small: UInt8[np.ndarray, "hs ws 3"]


@built_in("sls")
class ScalelessSiftMatcher:
    """SIFT Flow on Scale-less SIFT (Hassner, Mayzels, Zelnik-Manor, CVPR 2012)."""

    Settings: ClassVar[type[BaseModel]] = SlsSettings

    def __init__(self, settings: SlsSettings) -> None:
        self.settings = settings

    def prepare(self, image: MatchImage) -> Any:
        """The image at the size of the comparison; principal components are of a pair, so all else waits for it."""
        height, width = image.rgb.shape[:2]
        small = resize_rgb(image.rgb, *working_size(width, height, self.settings.size))
        return _Prepared(image, cv2.cvtColor(image.rgb, cv2.COLOR_RGB2GRAY), small)

    def match(self, a: Any, b: Any, context: PairContext) -> DenseMatch:  # noqa: ARG002
        """Flow of both directions, refined, with confidence and consistency."""
        s = self.settings
        scales = [descriptors_over_scales(side.small) for side in (a, b)]
        components = common_components(scales[0], scales[1], s.dimensions)
        points = [scaleless_sift(one, components, s.subspace) for one in scales]
        masks = [
            None if side.image.mask is None else resize_mask(side.image.mask, *side.small.shape[1::-1])
            for side in (a, b)
        ]
        flows = []
        for k, (own, other) in enumerate(((a, b), (b, a))):
            found = sift_flow(points[k], points[1 - k], settings=s, mask_a=masks[k], mask_b=masks[1 - k]).flow
            flow = _at_full_size(found, own.gray.shape, other.small.shape[:2], other.gray.shape)
            flows.append(refine_flow(own.gray, other.gray, flow) if s.subpixel else flow)
        return finish_pair(a.image, b.image, flows[0], flows[1], settings=s)


def _at_full_size(
    flow: Float32[np.ndarray, "hs ws 2"],
    source: tuple[int, int],
    small_target: tuple[int, int],
    target: tuple[int, int],
) -> Float32[np.ndarray, "h w 2"]:
    """Flow between two reduced images as flow between the images; sizes are (height, width)."""
    out = np.empty((*source, 2), np.float32)
    enlarged = cv2.resize(flow, source[::-1], interpolation=cv2.INTER_LINEAR)
    for k, axis in ((0, 1), (1, 0)):
        pixels = np.arange(source[axis], dtype=np.float32)
        small = (pixels + 0.5) * (flow.shape[axis] / source[axis]) - 0.5
        along = (slice(None), None) if axis == 0 else (None, slice(None))
        at = (small[along] + enlarged[..., k] + 0.5) * (target[axis] / small_target[axis]) - 0.5
        out[..., k] = at - pixels[along]
    return out
