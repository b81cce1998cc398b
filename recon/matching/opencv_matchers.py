"""OpenCV's dense optical flow behind the Matcher contract: cheap baselines for small motion."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from pydantic import BaseModel, Field

from recon.matching.confidence import ConsistencySettings, finish_pair
from recon.matching.registry import built_in
from recon.matching.types import DenseMatch, MatchImage, PairContext


class DisSettings(ConsistencySettings):
    """Settings of DIS flow."""

    preset: Literal["ultrafast", "fast", "medium"] = Field("medium", description="OpenCV's preset")


class FarnebackSettings(ConsistencySettings):
    """Settings of Farneback flow (OpenCV's names)."""

    levels: int = Field(5, ge=1, le=12, description="pyramid levels")
    window: int = Field(21, ge=3, le=101, description="averaging window in pixels")
    iterations: int = Field(3, ge=1, le=50, description="iterations at each level")


@dataclass(frozen=True)
class _Prepared:
    image: MatchImage
    gray: UInt8[np.ndarray, "h w"]


class _OpticalFlowMatcher(ABC):
    """Runs an OpenCV flow on grey images; the target is stretched to the source's size where they differ."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    def prepare(self, image: MatchImage) -> Any:
        """The grey image."""
        return _Prepared(image, cv2.cvtColor(image.rgb, cv2.COLOR_RGB2GRAY))

    def match(self, a: Any, b: Any, context: PairContext) -> DenseMatch:  # noqa: ARG002
        """Flow of both directions with round trip confidence and consistency."""
        return finish_pair(
            a.image,
            b.image,
            self._direction(a.gray, b.gray),
            self._direction(b.gray, a.gray),
            settings=self.settings,
        )

    def _direction(self, source: UInt8[np.ndarray, "h w"], target: UInt8[np.ndarray, "hb wb"]) -> Any:
        (h, w), (hb, wb) = source.shape, target.shape
        if (h, w) == (hb, wb):
            return self._flow(source, target)
        stretched = cv2.resize(
            target, (w, h), interpolation=cv2.INTER_AREA if hb * wb > h * w else cv2.INTER_LINEAR
        )
        flow = self._flow(source, stretched)
        y, x = np.mgrid[0:h, 0:w].astype(np.float32)
        out = np.empty_like(flow)
        out[..., 0] = (x + flow[..., 0] + 0.5) * (wb / w) - 0.5 - x
        out[..., 1] = (y + flow[..., 1] + 0.5) * (hb / h) - 0.5 - y
        return out

    @abstractmethod
    def _flow(self, source: UInt8[np.ndarray, "h w"], target: UInt8[np.ndarray, "h w"]) -> Any:
        """Flow between two grey images of one size, (h, w, 2) float32."""


@built_in("dis")
class DisMatcher(_OpticalFlowMatcher):
    """Dense inverse search (Kroeger et al., ECCV 2016) as OpenCV has it."""

    Settings: ClassVar[type[BaseModel]] = DisSettings

    def _flow(
        self, source: UInt8[np.ndarray, "h w"], target: UInt8[np.ndarray, "h w"]
    ) -> Float32[np.ndarray, "h w 2"]:
        preset = getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{self.settings.preset.upper()}", None)
        if preset is None:
            preset = getattr(cv2, f"DISOpticalFlow_PRESET_{self.settings.preset.upper()}")
        # The patches of its coarsest level need some room.
        small = min(source.shape) < 32
        if small:
            return np.zeros((*source.shape, 2), np.float32)
        # A new object each time: it keeps buffers and is not safe to share between threads.
        return np.asarray(cv2.DISOpticalFlow.create(preset).calc(source, target, None), np.float32)


@built_in("farneback")
class FarnebackMatcher(_OpticalFlowMatcher):
    """Polynomial expansion (Farneback, SCIA 2003) as OpenCV has it."""

    Settings: ClassVar[type[BaseModel]] = FarnebackSettings

    def _flow(
        self, source: UInt8[np.ndarray, "h w"], target: UInt8[np.ndarray, "h w"]
    ) -> Float32[np.ndarray, "h w 2"]:
        s = self.settings
        flow = cv2.calcOpticalFlowFarneback(
            source, target, None, 0.5, s.levels, s.window, s.iterations, 7, 1.5, 0
        )
        return np.asarray(flow, np.float32)
