"""Matchers on hyperpixels: DHPF, HPF, and SIFT Flow that starts from DHPF."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from pydantic import BaseModel, Field

from recon.core.resize import resize_rgb
from recon.errors import UsageError
from recon.matching.confidence import ConsistencySettings, finish_pair
from recon.matching.hyperpixel_weights import load_backbone, load_network
from recon.matching.registry import built_in
from recon.matching.siftflow import DescriptorPyramid, sift_flow_pyramid
from recon.matching.siftflow_matcher import SiftFlowMatcher, SiftFlowMatcherSettings
from recon.matching.subpixel import refine_flow
from recon.matching.torch_threads import inference
from recon.matching.types import Capabilities, DenseMatch, MatchDiagnostics, MatchImage, PairContext

if TYPE_CHECKING:
    from recon.hyperpixels.backbones import Backbone
    from recon.hyperpixels.correlation import PairCorrelation
    from recon.hyperpixels.dhpf import ImageFeatures
    from recon.hyperpixels.grid import Grid

STEP = 4
"""Distance of cells in pixels (the paper's)."""

MOST_ENLARGED = 4.0
"""Small images are enlarged by no more than this."""


class _StartSettings(BaseModel):
    """The network and the size of images that it compares; SIFT Flow that starts from it has these too."""

    backbone: str = Field(
        "",
        description="mobilenetv2, efficientnet-lite0, resnet50, resnet101 or dinov2-vits14; empty: the checkpoint's",
    )
    weights: str = Field(
        "",
        description="ImageNet weights of the backbone: a file or folder; empty: RECON_DATA/weights, torch hub's cache",
    )
    download: bool = Field(
        False, description="fetch missing ImageNet weights, with checksum, into torch hub's cache"
    )
    size: int = Field(
        320, ge=64, le=1024, description="longest side at most, in pixels, at which whole images are compared"
    )


class _NetworkSettings(_StartSettings):
    hough: bool = Field(True, description="regularized Hough matching")
    subpixel: bool = Field(True, description="refine the flow below the pixel on the grey images")


class HyperpixelSettings(ConsistencySettings, _NetworkSettings):
    """Settings that the hyperpixel matchers share."""

    device: str = Field("cpu", description="cpu or cuda")


class DhpfSettings(HyperpixelSettings):
    """Settings of Dynamic Hyperpixel Flow."""

    checkpoint: str = Field(
        "", description="gates and transforms: a file of ours or of DHPF's authors; empty: the shipped one"
    )


class HpfSettings(HyperpixelSettings):
    """Settings of Hyperpixel Flow."""

    backbone: str = Field(
        "mobilenetv2", description="mobilenetv2, efficientnet-lite0, resnet50, resnet101 or dinov2-vits14"
    )
    layers: str = Field(
        "", description="numbers of the layers, with commas; empty: those found for the backbone"
    )


@dataclass(frozen=True)
class _Prepared:
    """Features of one image: of the whole at the coarsest size, of fine layers at the larger sizes."""

    image: MatchImage
    gray: UInt8[np.ndarray, "h w"]
    whole: ImageFeatures
    finer: tuple[ImageFeatures, ...]  # coarse to fine


class HyperpixelMatcher(ABC):
    """Correlation of whole images at a small size, then a search round that flow at each larger size.

    Whole images are compared at up to ``size`` pixels: correlation of all cells, Hough matching, mutual filtering, the
    peak below the cell, and consensus of neighbouring cells. Each larger size (twice the one before, up to the image's
    own) compares the last layers of stride 4 and 8 in a small window round the flow so far.
    """

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities]
    Settings: ClassVar[type[BaseModel]]

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self._device = checked_device(settings.device)
        self._network = self._load()

    @abstractmethod
    def _load(self) -> Any:
        """The network, on its device; it has ``prepare``, ``correlate`` and ``backbone``."""

    @abstractmethod
    def _correlate(self, a: ImageFeatures, b: ImageFeatures) -> tuple[PairCorrelation, tuple[int, ...]]:
        """Correlation of two whole images, and the layers that it uses."""

    def prepare(self, image: MatchImage) -> Any:
        """Backbone features of one image at all sizes."""
        gray = cv2.cvtColor(image.rgb, cv2.COLOR_RGB2GRAY)
        sizes = working_sizes(image.rgb.shape[1], image.rgb.shape[0], self.settings.size)
        with inference():
            tensors = [self._tensor(image.rgb, size) for size in sizes]
            whole = self._network.prepare(tensors[0], STEP)
            finer = tuple(self._fine(tensor) for tensor in (tensors[1:] if len(tensors) > 1 else tensors))
        return _Prepared(image, gray, whole, finer)

    def match(self, a: Any, b: Any, context: PairContext) -> DenseMatch:  # noqa: ARG002
        """Flow of both directions, refined, with confidence and consistency."""
        a_to_b, b_to_a, layers = self.flows(a, b)
        settings = self.settings
        if settings.subpixel:
            a_to_b = refine_flow(a.gray, b.gray, a_to_b)
            b_to_a = refine_flow(b.gray, a.gray, b_to_a)
        return finish_pair(
            a.image,
            b.image,
            a_to_b,
            b_to_a,
            settings=settings,
            diagnostics=MatchDiagnostics(notes={"layers": list(layers)}),
        )

    def flows(
        self, a: Any, b: Any
    ) -> tuple[Float32[np.ndarray, "ha wa 2"], Float32[np.ndarray, "hb wb 2"], tuple[int, ...]]:
        """Both flows at the pixels of the images, without refinement on the grey images, and the layers used."""
        from recon.hyperpixels.cells import match_cells
        from recon.hyperpixels.flow import agreed_offsets, unit_displacement

        with inference():
            pair, layers = self._correlate(a.whole, b.whole)
            there, back = match_cells(pair, hough=self.settings.hough)
            del pair
            flows = []
            for own, other, one, reverse in ((a, b, there, back), (b, a, back, there)):
                offsets = agreed_offsets(one, reverse)
                displacement = unit_displacement(offsets, one.source, one.target)
                flows.append(self._refined(own, other, displacement, one.source))
        return flows[0], flows[1], layers

    def _refined(
        self, own: _Prepared, other: _Prepared, displacement: Float32[np.ndarray, "r c 2"], grid: Grid
    ) -> Float32[np.ndarray, "h w 2"]:
        from recon.hyperpixels.flow import pixel_offsets, refine_offsets, resample, unit_displacement
        from recon.hyperpixels.grid import Grid as Cells

        for level in range(max(len(own.finer), len(other.finer))):
            # The smaller image keeps its own size while the other still grows.
            source = own.finer[min(level, len(own.finer) - 1)]
            target = other.finer[min(level, len(other.finer) - 1)]
            start = pixel_offsets(resample(displacement, grid, source.grid), source.grid, target.grid)
            found = refine_offsets(self._fine_pixels(source), self._fine_pixels(target), start)
            grid = source.grid
            displacement = unit_displacement(found, grid, target.grid)
        h, w = own.image.rgb.shape[:2]
        hb, wb = other.image.rgb.shape[:2]
        pixels = Cells(h, w, 1)
        return pixel_offsets(resample(displacement, grid, pixels), pixels, Cells(hb, wb, 1))

    def _tensor(self, rgb: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> Any:
        import torch

        from recon.hyperpixels.backbones import normalise

        resized = np.array(resize_rgb(rgb, *size))
        tensor = torch.from_numpy(resized).to(self._device).permute(2, 0, 1)[None].float() / 255
        return normalise(tensor)

    def _fine(self, tensor: Any) -> ImageFeatures:
        from recon.hyperpixels.dhpf import ImageFeatures as Features
        from recon.hyperpixels.grid import Grid as Cells

        backbone = self._network.backbone
        maps = backbone.features(tensor, fine_layers(backbone))
        return Features(Cells(tensor.shape[2], tensor.shape[3], STEP), maps)

    def _fine_pixels(self, image: ImageFeatures) -> Any:
        from recon.hyperpixels.correlation import hyperpixels

        layers = self._network.backbone.layers
        # Each layer counts alike, whatever the size of its values.
        return hyperpixels(
            image.grid,
            [
                (layers[number].stride, one / one.square().sum(1, keepdim=True).clamp(min=1e-12).sqrt())
                for number, one in image.maps.items()
            ],
        )


@built_in("dhpf")
class DhpfMatcher(HyperpixelMatcher):
    """Dynamic Hyperpixel Flow: each pair selects the layers that describe it."""

    Settings: ClassVar[type[BaseModel]] = DhpfSettings

    def _load(self) -> Any:
        s = self.settings
        network = load_network(s.checkpoint, s.backbone, s.weights, download=s.download, matcher=self.name)
        network.stretch = False  # flow needs every cell where it is
        return network.requires_grad_(False).to(self._device)

    def _correlate(self, a: ImageFeatures, b: ImageFeatures) -> tuple[PairCorrelation, tuple[int, ...]]:
        layers = self._network.select(a, b)
        return self._network.correlate(a, b, layers), layers


@built_in("hpf")
class HpfMatcher(HyperpixelMatcher):
    """Hyperpixel Flow: the same layers of the ImageNet backbone for every pair; needs no training."""

    Settings: ClassVar[type[BaseModel]] = HpfSettings

    def _load(self) -> Any:
        from recon.hyperpixels.hpf import DEFAULT_LAYERS, HyperpixelFlow

        s = self.settings
        layers = parse_layers(s.layers)
        backbone = load_backbone(s.backbone, s.weights, download=s.download, matcher=self.name)
        return HyperpixelFlow(backbone.to(self._device), layers or DEFAULT_LAYERS[s.backbone])

    def _correlate(self, a: ImageFeatures, b: ImageFeatures) -> tuple[PairCorrelation, tuple[int, ...]]:
        return self._network.correlate(a, b), self._network.layers


class _StartChoice(SiftFlowMatcherSettings):
    checkpoint: str = Field(
        "", description="DHPF: gates and transforms, a file of ours or of its authors; empty: the shipped one"
    )
    layers: str = Field(
        "", description="start from HPF with these layers instead, numbers with commas; needs no checkpoint"
    )


class DhpfSiftFlowSettings(_StartSettings, _StartChoice):
    """Settings of SIFT Flow that starts from DHPF: SIFT Flow's own, and those of the start."""

    device: str = Field("cpu", description="of DHPF: cpu or cuda")
    start_level: int = Field(
        2, ge=0, le=5, description="SIFT Flow starts at images halved this often, on DHPF's flow there"
    )
    start_window: int = Field(6, ge=1, le=20, description="search radius at that level, in its pixels")


@built_in("dhpf-siftflow")
class DhpfSiftFlowMatcher(SiftFlowMatcher):
    """SIFT Flow whose windows are centred on DHPF's flow: it finds what looks alike, SIFT Flow the pixel."""

    Settings: ClassVar[type[BaseModel]] = DhpfSiftFlowSettings

    def __init__(self, settings: DhpfSiftFlowSettings) -> None:
        super().__init__(settings)
        shared = {key: getattr(settings, key) for key in (*_StartSettings.model_fields, "device")}
        self._start: HyperpixelMatcher
        if settings.layers:
            shared["backbone"] = settings.backbone or "mobilenetv2"
            self._start = HpfMatcher(HpfSettings(layers=settings.layers, **shared))
        else:
            self._start = DhpfMatcher(DhpfSettings(checkpoint=settings.checkpoint, **shared))

    def prepare(self, image: MatchImage) -> Any:
        """Descriptors of SIFT Flow and features of DHPF."""
        return super().prepare(image), self._start.prepare(image)

    def match(self, a: Any, b: Any, context: PairContext) -> DenseMatch:
        """DHPF's flow, refined by SIFT Flow, in both directions."""
        settings = self.settings
        assert isinstance(settings, DhpfSiftFlowSettings)
        first_ab, first_ba, layers = self._start.flows(a[1], b[1])
        pyramid_a, scale_a, pyramid_b, scale_b, used = self.pair_descriptors(a[0], b[0], context)
        a_to_b = self._from(first_ab, pyramid_a, pyramid_b)
        b_to_a = self._from(first_ba, pyramid_b, pyramid_a)
        if settings.subpixel:
            a_to_b = refine_flow(a[0].gray, b[0].gray, a_to_b)
            b_to_a = refine_flow(b[0].gray, a[0].gray, b_to_a)
        return finish_pair(
            a[0].image,
            b[0].image,
            a_to_b,
            b_to_a,
            sift_a=pyramid_a.sift[0],
            sift_b=pyramid_b.sift[0],
            settings=settings,
            diagnostics=MatchDiagnostics(scale_a, scale_b, {"propagation": used, "layers": list(layers)}),
        )

    def _from(
        self, flow: Float32[np.ndarray, "h w 2"], own: DescriptorPyramid, other: DescriptorPyramid
    ) -> Float32[np.ndarray, "h w 2"]:
        """SIFT Flow from a start, on levels of the pyramid from ``start_level`` down to the images' own size."""
        settings = self.settings
        assert isinstance(settings, DhpfSiftFlowSettings)
        first = min(settings.start_level, len(own.sift) - 1, len(other.sift) - 1)
        sizes = [
            ((a.shape[1], a.shape[0]), (b.shape[1], b.shape[0]))
            for a, b in zip(own.sift, other.sift, strict=False)
        ]
        here = sizes[0]
        for level in range(first, -1, -1):
            start = _at_size(flow, here, sizes[level])
            here = sizes[level]
            one = settings.model_copy(
                update={
                    "window": settings.start_window if level == first else settings.window + level,
                    "iterations": settings.top_iterations if level == first else settings.iterations,
                    "gamma": settings.gamma * 2**level,
                    "levels": max(1, first),
                }
            )
            flow = sift_flow_pyramid(
                DescriptorPyramid(own.sift[level : level + 1], own.mask[level : level + 1]),
                DescriptorPyramid(other.sift[level : level + 1], other.mask[level : level + 1]),
                settings=one,
                initial=start,
                threads=1,
            ).flow
        return flow


def _at_size(
    flow: Float32[np.ndarray, "h w 2"],
    old: tuple[tuple[int, int], tuple[int, int]],
    new: tuple[tuple[int, int], tuple[int, int]],
) -> Float32[np.ndarray, "h2 w2 2"]:
    """Flow between two images as flow between two other sizes of them; sizes are (width, height) of both images."""
    from recon.hyperpixels.flow import pixel_offsets, resample, unit_displacement
    from recon.hyperpixels.grid import Grid as Cells

    (source, target), (source2, target2) = (
        tuple(Cells(height, width, 1) for width, height in sizes) for sizes in (old, new)
    )
    field = unit_displacement(np.ascontiguousarray(flow, np.float32), source, target)
    return pixel_offsets(resample(field, source, source2), source2, target2)


def working_sizes(width: int, height: int, size: int) -> list[tuple[int, int]]:
    """(width, height) at each level, coarse to fine: halved until the longest side is at most ``size``.

    An image whose longest side is below half of ``size`` is enlarged to that, by no more than ``MOST_ENLARGED``.
    """
    longest = max(width, height)
    halvings = max(0, math.ceil(math.log2(longest / size))) if longest > size else 0
    scales = [0.5**k for k in range(halvings, -1, -1)]
    if halvings == 0:
        scales = [float(np.clip(size / 2 / longest, 1, MOST_ENLARGED))]
    return [(max(1, round(width * s)), max(1, round(height * s))) for s in scales]


def fine_layers(backbone: Backbone) -> tuple[int, ...]:
    """The layers that finer sizes are compared on: the last ones of stride 4 and 8, else the last of the finest."""
    strides = [layer.stride for layer in backbone.layers]
    wanted = {4, 8} & set(strides) or {min(strides)}
    return tuple(max(i for i, s in enumerate(strides) if s == stride) for stride in sorted(wanted))


def parse_layers(text: str) -> tuple[int, ...]:
    """Layer numbers written with commas.

    Raises:
        UsageError: a part is no number.
    """
    try:
        return tuple(int(part) for part in text.replace(" ", "").strip("()").split(",") if part)
    except ValueError as error:
        raise UsageError(f"layers={text!r}: numbers with commas were expected, for example 2,7,11") from error


def checked_device(name: str) -> str:
    """The device, if it is there.

    Raises:
        UsageError: it is not known, or there is no CUDA.
    """
    import torch

    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise UsageError(f"device={name!r} is not known; cpu and cuda are") from error
    if kind not in ("cpu", "cuda"):
        raise UsageError(f"device={name!r} is not supported; cpu and cuda are")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            f"device={name!r}: torch {torch.__version__} finds no CUDA device here; take device=cpu"
        )
    return name
