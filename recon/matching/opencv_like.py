"""A recon matcher in the place of OpenCV's ``DenseOpticalFlow``."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from recon.errors import UsageError
from recon.matching.registry import create_matcher
from recon.matching.types import DenseMatch, MatchImage, PairContext


class DenseOpticalFlow:
    """Dense flow with the interface of ``cv2.DenseOpticalFlow``: ``calc(I0, I1, flow) -> flow``.

    Unlike OpenCV's classes it takes images of different sizes, and it keeps no buffers: one object serves several
    threads.

    Args:
        matcher: name of a dense matcher.
        settings: that matcher's settings.

    Raises:
        UsageError: no dense matcher has that name, or it does not take such settings.
    """

    def __init__(self, matcher: str = "siftflow", **settings: Any) -> None:
        self._matcher = create_matcher(matcher, **settings)
        if self._matcher.capabilities.kind != "dense":
            raise UsageError(f"matcher {matcher!r} finds sparse matches; dense flow needs a dense one")

    def calc(
        self,
        I0: UInt8[np.ndarray, "..."],
        I1: UInt8[np.ndarray, "..."],
        flow: Float32[np.ndarray, "h w 2"] | None = None,
    ) -> Float32[np.ndarray, "h w 2"]:
        """Flow from I0 to I1, (h, w, 2) float32.

        Args:
            I0, I1: grey (h, w) or (h, w, 1), or BGR (h, w, 3), uint8.
            flow: an array of the result's shape and type is filled and returned, as OpenCV does; its values are
                not read.

        Raises:
            UsageError: an image is not uint8 or has another shape.
        """
        a = self._matcher.prepare(MatchImage(_as_rgb(I0, "I0")))
        b = self._matcher.prepare(MatchImage(_as_rgb(I1, "I1")))
        match = self._matcher.match(a, b, PairContext())
        assert isinstance(match, DenseMatch)
        result = match.a_to_b.flow
        if flow is not None and flow.shape == result.shape and flow.dtype == result.dtype:
            flow[...] = result
            return flow
        return result

    def collectGarbage(self) -> None:  # noqa: N802
        """Does nothing: no buffers are kept between calls."""

    def getDefaultName(self) -> str:  # noqa: N802
        """``recon.`` and the matcher's name."""
        return f"recon.{self._matcher.name}"


def _as_rgb(image: UInt8[np.ndarray, "..."], name: str) -> UInt8[np.ndarray, "h w 3"]:
    image = np.asarray(image)
    if image.dtype != np.uint8:
        raise UsageError(f"{name} is {image.dtype}; dense flow takes uint8 images")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.ndim == 2:
        return np.ascontiguousarray(np.repeat(image[..., None], 3, axis=2))
    if image.ndim == 3 and image.shape[2] == 3:
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2RGB))
    raise UsageError(f"{name} has shape {image.shape}; dense flow takes (h, w), (h, w, 1) or (h, w, 3)")
