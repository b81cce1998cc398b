"""Matchers of the vismatch collection (https://github.com/gmberton/vismatch) as ``vismatch:NAME``.

The collection is not imported before one of its matchers is asked for. It fetches weights when a matcher is made and
asks its host even where they are present; both happen only with ``download=true``.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recon.errors import ReconError, UsageError
from recon.matching.torch_threads import inference
from recon.matching.types import Capabilities, MatchImage, PairContext, SparseMatch

INSTALL = (
    "pip install 'recon-photogrammetry[vismatch]' (in an environment of its own: it needs an older kornia)"
)


class VismatchSettings(BaseModel):
    """Settings of a matcher of the collection."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_points: int = Field(
        2048, ge=8, le=20_000, description="points per image, where the matcher has points"
    )
    device: str = Field("cpu", description="torch device")
    download: bool = Field(False, description="let the collection fetch weights that are not in its caches")


class VismatchMatcher:
    """One matcher of the collection; subclasses name it.

    Its points are matched pair by pair, so that nothing is prepared but the image, and the points of matchers
    without a detector move from pair to pair. What it gives is taken before its own RANSAC. One pair at a time:
    nothing says that its networks may be used from several threads.
    """

    name: ClassVar[str]
    member: ClassVar[str]
    capabilities: ClassVar[Capabilities]
    Settings: ClassVar[type[BaseModel]] = VismatchSettings

    def __init__(self, settings: VismatchSettings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        collection = _collection()
        known = tuple(getattr(collection, "available_models", ()))
        if known and self.member not in known:
            raise UsageError(f"vismatch has no matcher {self.member!r}; it has: {', '.join(sorted(known))}")
        try:
            # Its chatter belongs to no result.
            with contextlib.redirect_stdout(io.StringIO()), _network(settings.download):
                self._matcher = collection.get_matcher(
                    self.member, device=settings.device, max_num_keypoints=settings.max_points
                )
        except Exception as error:
            way_out = "" if settings.download else "; if its weights are missing here, say download=true once"
            raise ReconError(
                f"matcher {self.name!r} cannot be made ({type(error).__name__}: {error}){way_out}"
            ) from error

    def prepare(self, image: MatchImage) -> Any:
        """The image as the collection takes it, (3, h, w) in 0…1, and its mask."""
        planes = np.ascontiguousarray(image.rgb.transpose(2, 0, 1), dtype=np.float32) / np.float32(255)
        return planes, image.mask

    def match(self, a: Any, b: Any, context: PairContext) -> SparseMatch:  # noqa: ARG002
        """Matched points, those on masked pixels left out; matchers without a confidence score 1."""
        with self._lock, inference() as torch, _network(self.settings.download):
            torch.manual_seed(0)  # some of them sample
            found = self._matcher(torch.from_numpy(a[0]), torch.from_numpy(b[0]))
        xy_a, xy_b = (
            np.asarray(found[key], np.float32).reshape(-1, 2) for key in ("matched_kpts0", "matched_kpts1")
        )
        confidence = found.get("matched_confidences")
        score = np.ones(len(xy_a), np.float32) if confidence is None else np.asarray(confidence, np.float32)
        keep = np.ones(len(xy_a), bool)
        for xy, mask in ((xy_a, a[1]), (xy_b, b[1])):
            if mask is not None:
                at = np.nan_to_num(np.rint(xy)).astype(np.int64)
                keep &= mask[at[:, 1].clip(0, mask.shape[0] - 1), at[:, 0].clip(0, mask.shape[1] - 1)]
        return SparseMatch(xy_a[keep], xy_b[keep], np.clip(score, 0, 1)[keep])


@cache
def vismatch_matcher(member: str) -> type[VismatchMatcher]:
    """The class of ``vismatch:member``; the collection itself is not imported yet.

    Raises:
        UsageError: the name is empty.
    """
    if not member:
        raise UsageError("write vismatch:NAME, for example vismatch:loftr")
    capabilities = Capabilities(
        kind="sparse",
        devices=("cpu", "cuda", "mps"),
        notes=f"{member} of the vismatch collection",
        repeatable=False,
    )
    parts = {"name": f"vismatch:{member}", "member": member, "capabilities": capabilities}
    return type("VismatchMatcher", (VismatchMatcher,), {**parts, "__module__": __name__})


def _collection() -> ModuleType:
    try:
        return importlib.import_module("vismatch")
    except ImportError as error:
        raise UsageError(f"matchers vismatch:NAME need the package vismatch ({error}): {INSTALL}") from error


@contextmanager
def _network(allowed: bool) -> Iterator[None]:
    """Within the block the Hugging Face client, which the collection asks, stays off the network unless allowed."""
    if allowed:
        yield
        return
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    constants = sys.modules.get("huggingface_hub.constants")  # read the variable when it was imported
    flag = getattr(constants, "HF_HUB_OFFLINE", None)
    if constants is not None:
        constants.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("HF_HUB_OFFLINE", None)
        else:
            os.environ["HF_HUB_OFFLINE"] = before
        if constants is not None:
            constants.HF_HUB_OFFLINE = flag  # type: ignore[attr-defined]
