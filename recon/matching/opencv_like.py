"""A recon matcher in the place of OpenCV's ``DenseOpticalFlow``."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from recon.errors import UsageError
from recon.matching.registry import create_matcher
from recon.matching.types import DenseMatch, MatchImage, PairContext

DESCRIPTOR = 128
"""Values of a SIFT descriptor; an image of so many channels is a SIFT image."""


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
            I0, I1: grey (h, w) or (h, w, 1), or BGR (h, w, 3), uint8. With the matchers of SIFT Flow also SIFT images
                (h, w, 128), uint8 or float32 of values from 0 to 255: their flow is in whole pixels.
            flow: an array of the result's shape and type is filled and returned, as OpenCV does; its values are
                not read.

        Raises:
            UsageError: an image is not uint8 or has another shape; one of both is a SIFT image, or the matcher compares
                none.
        """
        if any(np.ndim(image) == 3 and np.shape(image)[2] == DESCRIPTOR for image in (I0, I1)):
            return into(flow, self._of_descriptors(I0, I1))
        a = self._matcher.prepare(MatchImage(as_rgb(I0, "I0")))
        b = self._matcher.prepare(MatchImage(as_rgb(I1, "I1")))
        match = self._matcher.match(a, b, PairContext())
        assert isinstance(match, DenseMatch)
        return into(flow, match.a_to_b.flow)

    def _of_descriptors(self, *images: np.ndarray) -> Float32[np.ndarray, "h w 2"]:
        compare = getattr(self._matcher, "flow_of_descriptors", None)
        if compare is None:
            raise UsageError(
                f"matcher {self._matcher.name!r} compares photos, no SIFT images; siftflow and dsift-flow do"
            )
        found: np.ndarray = compare(*(_as_sift(image, f"I{k}") for k, image in enumerate(images)))
        return found

    def collectGarbage(self) -> None:  # noqa: N802
        """Does nothing: no buffers are kept between calls."""

    def getDefaultName(self) -> str:  # noqa: N802
        """``recon.`` and the matcher's name."""
        return f"recon.{self._matcher.name}"


def into(given: np.ndarray | None, result: np.ndarray) -> np.ndarray:
    """Return the result, in the caller's array where that has its shape and type."""
    if given is not None and given.shape == result.shape and given.dtype == result.dtype:
        given[...] = result
        return given
    return result


def _as_sift(image: np.ndarray, name: str) -> UInt8[np.ndarray, "h w 128"]:
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != DESCRIPTOR or image.dtype not in (np.uint8, np.float32):
        raise UsageError(
            f"{name} has shape {image.shape} and type {image.dtype}; beside a SIFT image it must be one too: "
            f"(h, w, {DESCRIPTOR}), uint8 or float32"
        )
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def as_rgb(image: UInt8[np.ndarray, "..."], name: str) -> UInt8[np.ndarray, "h w 3"]:
    """RGB of an image as OpenCV has it.

    Raises:
        UsageError: it is not uint8, or neither (h, w), (h, w, 1) nor (h, w, 3).
    """
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
