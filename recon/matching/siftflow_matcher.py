"""The matchers that run SIFT Flow: at propagated scales, and at one fixed scale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8
from pydantic import BaseModel, Field, model_validator

from recon.core.parallel import map_ordered
from recon.core.resize import resize_rgb
from recon.features.dense_sift import SMOOTHING, SiftLadder, build_ladder, dense_sift, describe
from recon.features.scale_propagation import DEFAULT_SCALE, propagate_scales
from recon.features.types import InterestPoints
from recon.matching.alignment import Similarity, align_back, align_image
from recon.matching.confidence import ConsistencySettings, finish_pair
from recon.matching.guide import Guide, guide_from_matches
from recon.matching.registry import built_in
from recon.matching.siftflow import (
    SCALEMAPS,
    DescriptorPyramid,
    SiftFlowSettings,
    descriptor_pyramid,
    sift_flow_pyramid,
)
from recon.matching.subpixel import RefinementSettings, refine_flow
from recon.matching.types import DenseMatch, MatchDiagnostics, MatchImage, PairContext

MINIMUM_SEEDS = 8
"""Match-aware propagation needs this many matched points; with fewer it falls back on image-aware."""


COARSEST_SIDE = 80
"""With automatic levels the longer side of the coarsest level is at most this."""

GUIDED_ITERATIONS = 8
"""Half sweeps at most where matched points guide the flow; windows are then a pixel narrower, too. What is well placed
needs no wide search and little time to settle: on nine pairs of real photos with known cameras as many pixels come back
and lie on their epipolar lines as with 30 half sweeps and the wider windows (docs/benchmarks.md)."""

COMMON_SCALE = 1.25
"""Where an image is larger by this factor or more, the other is enlarged to its scale for the match: between pixels of
different sizes a flow has steps that the sub-pixel refinement does not take out (docs/benchmarks.md)."""

REFINEMENT = RefinementSettings(rounds=2, omega=1.96)
"""SIFT Flow ends within a pixel of what the sub-pixel refinement finds, so that two rounds suffice where they relax
further; matchers with coarser starts need the three of ``DEFAULT_REFINEMENT``. Pixels that come back and lie within a
pixel of their epipolar line: 50.2% with three, 50.5% with two (docs/benchmarks.md)."""

SPARE_LEVELS = 2
"""Further levels of a pyramid with automatic levels, for pairs with a larger image."""

REACH = 1 / 3
"""With an automatic top window a pixel can move this share of the longer side of the target."""


class FixedScaleSettings(ConsistencySettings, SiftFlowSettings):
    """SIFT Flow's own settings and those of what follows it."""

    levels: int = Field(
        0, ge=0, le=8, description=f"pyramid levels; 0: until the longer side is at most {COARSEST_SIDE} px"
    )
    top_window: int = Field(
        0, ge=0, le=60, description="search radius at the coarsest level; 0: a third of its longer side"
    )
    subpixel: bool = Field(True, description="refine the flow below the pixel")
    threads: int = Field(1, ge=1, description="threads within one pair: 2 match both directions at once")


RELEASE: dict[str, Any] = {
    **SCALEMAPS.model_dump(include={"levels", "window", "top_window", "iterations", "top_iterations"}),
    "polish": 0,
    "subpixel": False,
    "seed_ratio": 1.0,
    "propagation_step": 1,
    "smoothing": 1.0,
}
"""The scale propagation paper's release: its windows, a ratio test that rejects nothing, VLFeat's smoothing, and whole
pixels as belief propagation leaves them."""


class SiftFlowMatcherSettings(FixedScaleSettings):
    """Settings of SIFT Flow at propagated scales."""

    preset: Literal["", "release"] = Field(
        "",
        description="release: what is not set is as in the scale propagation paper's release, whose pictures it gives",
    )

    propagation: Literal["match-aware", "image-aware", "geometric", "none"] = Field(
        "match-aware", description="how every pixel gets its SIFT scale; none: one fixed scale"
    )
    weighting: Literal["linear", "exponential"] = Field(
        "linear", description="how image differences weigh in image- and match-aware propagation"
    )
    propagation_step: int = Field(
        2,
        ge=1,
        le=8,
        description="scales are propagated on the image so many times smaller; 1: on the image, as in the release",
    )
    magnification: float = Field(
        1.0, gt=0, le=8, description="size of a descriptor cell in units of the propagated scale"
    )
    smoothing: float = Field(
        SMOOTHING,
        gt=0,
        le=2,
        description="blur before a descriptor's gradients, in cells (VLFeat: 1, Lowe: 1/3)",
    )
    seed_ratio: float | None = Field(
        None,
        gt=0,
        le=1,
        description="match-aware: scales come from interest points whose descriptors' distance is below this share of "
        "the second nearest's (1: of every point, as in the release); none: from matches that fit the pair's geometry",
    )

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("preset") == "release":
            return {**RELEASE, **given}
        return given


@dataclass(frozen=True)
class _Prepared:
    image: MatchImage
    gray: UInt8[np.ndarray, "h w"]
    points: InterestPoints | None
    ladder: SiftLadder | None
    pyramid: DescriptorPyramid | None
    scale_map: Float32[np.ndarray, "h w"] | None


@built_in("siftflow")
class SiftFlowMatcher:
    """SIFT Flow on descriptors whose scale is propagated from interest points to every pixel.

    Source: M. Tau, T. Hassner, "Dense Correspondences Across Scenes and Scales", TPAMI 2016. Match-aware
    propagation needs matched points of the pair; with fewer than ``MINIMUM_SEEDS`` it falls back on
    image-aware propagation from all points, and an image without points gets one fixed scale.
    """

    Settings: ClassVar[type[BaseModel]] = SiftFlowMatcherSettings

    def __init__(self, settings: FixedScaleSettings) -> None:
        self.settings = settings

    @property
    def _propagation(self) -> str:
        return getattr(self.settings, "propagation", "none")

    def prepare(self, image: MatchImage) -> Any:
        """Compute what all pairs of an image share: its scale ladder, or descriptors that depend on it alone."""
        gray = cv2.cvtColor(image.rgb, cv2.COLOR_RGB2GRAY)
        if self._propagation == "none":
            pyramid = self._pyramid(dense_sift(image.rgb), image.mask)
            return _Prepared(image, gray, None, None, pyramid, None)
        points = image.points
        if points is None:
            # A caller without a feature stage.
            from recon.features.interest_points import extract_interest_points

            points = extract_interest_points(image.rgb, mask=image.mask)
        if len(points) == 0:
            pyramid = self._pyramid(dense_sift(image.rgb), image.mask)
            return _Prepared(image, gray, points, None, pyramid, None)
        ladder = build_ladder(image.rgb, smoothing=getattr(self.settings, "smoothing", SMOOTHING))
        prepared = _Prepared(image, gray, points, ladder, None, None)
        if self._propagation == "match-aware":
            return prepared
        pyramid, scale_map = self._describe(prepared, points, self._propagation)
        return _Prepared(image, gray, points, ladder, pyramid, scale_map)

    def match(self, a: Any, b: Any, context: PairContext) -> DenseMatch:
        """Flow of both directions, refined, with confidence and consistency; at the larger image's scale, see
        ``COMMON_SCALE``."""
        (height_a, width_a), (height_b, width_b) = a.gray.shape, b.gray.shape
        factor = float(np.sqrt(width_a * height_a / (width_b * height_b)))
        if max(factor, 1 / factor) < COMMON_SCALE:
            return self._match_alike(a, b, context)
        if factor < 1:
            return _exchanged(self.match(b, a, PairContext(_swapped(context.seeds))))
        size = round(factor * width_b), round(factor * height_b)
        scale = np.diag([size[0] / width_b, size[1] / height_b])
        enlarging = Similarity(np.column_stack([scale, 0.5 * (np.diag(scale) - 1)]))
        enlarged = self.prepare(align_image(b.image, enlarging, size))
        # The refinement compares what was taken at one sampling.
        blur = REFINEMENT.blur * float(np.sqrt(factor**2 - 1))
        coarse = replace(a, gray=cv2.GaussianBlur(a.gray, (0, 0), blur))
        return align_back(self._match_alike(coarse, enlarged, context), enlarging, (width_b, height_b))

    def _match_alike(self, a: Any, b: Any, context: PairContext) -> DenseMatch:
        """``match`` of images of about one size."""
        settings = self.settings
        pyramid_a, scale_a, pyramid_b, scale_b, used = self.pair_descriptors(a, b, context)

        def direction(source: Any, target: Any, own: DescriptorPyramid, other: DescriptorPyramid) -> Any:
            resolved = settings_for_pair(settings, own, other)
            guide = self._guide(source, target, context.seeds if source is a else _swapped(context.seeds))
            if guide is not None:
                narrow = {
                    "window": max(1, resolved.window - 1),
                    "iterations": min(resolved.iterations, GUIDED_ITERATIONS),
                }
                resolved = resolved.model_copy(update=narrow)
            flow = sift_flow_pyramid(own, other, settings=resolved, guide=guide).flow
            if settings.subpixel:
                flow = refine_flow(source.gray, target.gray, flow, settings=REFINEMENT)
            return flow

        jobs = ((a, b, pyramid_a, pyramid_b), (b, a, pyramid_b, pyramid_a))
        a_to_b, b_to_a = map_ordered(lambda job: direction(*job), jobs, min(settings.threads, 2))
        return finish_pair(
            a.image,
            b.image,
            a_to_b,
            b_to_a,
            sift_a=pyramid_a.sift[0],
            sift_b=pyramid_b.sift[0],
            settings=settings,
            diagnostics=MatchDiagnostics(scale_a, scale_b, {"propagation": used}),
        )

    def flow_of_descriptors(
        self, a: UInt8[np.ndarray, "ha wa c"], b: UInt8[np.ndarray, "hb wb c"]
    ) -> Float32[np.ndarray, "ha wa 2"]:
        """Flow in whole pixels between two SIFT images, one descriptor a pixel."""
        own, other = (self._pyramid(sift, None) for sift in (a, b))
        return sift_flow_pyramid(own, other, settings=settings_for_pair(self.settings, own, other)).flow

    def pair_descriptors(self, a: Any, b: Any, context: PairContext) -> tuple[Any, Any, Any, Any, str]:
        """Pyramids and scale maps of both images for this pair, and which propagation made them."""
        if a.pyramid is not None and b.pyramid is not None:
            return a.pyramid, a.scale_map, b.pyramid, b.scale_map, self._propagation
        if a.ladder is None or b.ladder is None:
            # One image has no interest points: both at one scale.
            used = "none"
            pyramids = [
                p.pyramid
                if p.scale_map is None and p.pyramid is not None
                else self._pyramid(dense_sift(p.image.rgb), p.image.mask)
                for p in (a, b)
            ]
            return pyramids[0], None, pyramids[1], None, used
        ratio = getattr(self.settings, "seed_ratio", None)
        seeds = context.seeds
        if ratio is not None or seeds is None:
            from recon.features.interest_points import MATCH_RATIO, match_interest_points

            # The release matches one way.
            seeds = match_interest_points(
                a.points, b.points, ratio=ratio or MATCH_RATIO, mutual=ratio is None
            )
        if len(seeds) >= MINIMUM_SEEDS:
            points = [_subset(a.points, seeds[:, 0]), _subset(b.points, seeds[:, 1])]
            used = "match-aware"
        else:
            points = [a.points, b.points]
            used = "image-aware"
        (pyramid_a, scale_a), (pyramid_b, scale_b) = self._each(
            lambda job: self._describe(job[0], job[1], "image-aware"), [(a, points[0]), (b, points[1])]
        )
        return pyramid_a, scale_a, pyramid_b, scale_b, used

    def _guide(self, source: Any, target: Any, seeds: Int64[np.ndarray, "m 2"] | None) -> Guide | None:
        """Guide from given matches; those that this matcher finds itself are not verified, and guide nothing."""
        ratio = getattr(self.settings, "seed_ratio", None)
        if seeds is None or ratio is not None or source.points is None or target.points is None:
            return None
        xy_source, xy_target = source.points.xy[seeds[:, 0]], target.points.xy[seeds[:, 1]]
        return guide_from_matches(xy_source, xy_target, source.gray.shape)

    def _each(self, fn: Any, jobs: Any) -> list[Any]:
        return map_ordered(fn, jobs, min(self.settings.threads, 2))

    def _describe(self, prepared: _Prepared, points: InterestPoints, propagation: str) -> tuple[Any, Any]:
        assert prepared.ladder is not None
        scale_map = self._scales(prepared.image.rgb, points, propagation)
        sift = describe(
            prepared.ladder, scale_map, magnification=getattr(self.settings, "magnification", 1.0)
        )
        return self._pyramid(sift, prepared.image.mask), scale_map

    def _scales(
        self, rgb: UInt8[np.ndarray, "h w 3"], points: InterestPoints, propagation: str
    ) -> Float32[np.ndarray, "h w"]:
        """The scale of every pixel, propagated on the image or a smaller one; the map is smooth, whatever it shows."""
        height, width = rgb.shape[:2]
        step = getattr(self.settings, "propagation_step", 1)
        size = (-(-width // step), -(-height // step))
        factors = size[0] / width, size[1] / height
        factor = float(np.sqrt(factors[0] * factors[1]))
        found = propagate_scales(
            resize_rgb(rgb, *size),
            points if step == 1 else points.at_size(*factors),
            guide="geometric" if propagation == "geometric" else "image",
            weighting=getattr(self.settings, "weighting", "linear"),
            default_scale=DEFAULT_SCALE * factor,
        )
        if step == 1:
            return found
        grown = cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(grown / np.float32(factor), np.float32)

    def _pyramid(
        self, sift: UInt8[np.ndarray, "h w c"], mask: Bool[np.ndarray, "h w"] | None
    ) -> DescriptorPyramid:
        levels = self.settings.levels or _automatic_levels(sift.shape[:2]) + SPARE_LEVELS
        return descriptor_pyramid(sift, levels, mask)


@built_in("dsift-flow")
class FixedScaleMatcher(SiftFlowMatcher):
    """SIFT Flow on dense SIFT of one scale (cells of 3 px), as the original SIFT Flow."""

    Settings: ClassVar[type[BaseModel]] = FixedScaleSettings


def _exchanged(match: DenseMatch) -> DenseMatch:
    """The match of B and A as that of A and B."""
    found = match.diagnostics
    if found is not None:
        found = MatchDiagnostics(found.scale_map_b, found.scale_map_a, found.notes)
    return DenseMatch(match.b_to_a, match.a_to_b, match.consistent_b, match.consistent_a, found)


def _automatic_levels(size: tuple[int, ...]) -> int:
    return 1 + max(0, int(np.ceil(np.log2(max(size) / COARSEST_SIDE))))


def settings_for_pair(
    settings: FixedScaleSettings, a: DescriptorPyramid, b: DescriptorPyramid
) -> SiftFlowSettings:
    """The settings with automatic levels and window filled in."""
    levels = min(len(a.sift), len(b.sift))
    if settings.levels == 0:
        # The larger image decides: a short pyramid would leave it with a long way to search.
        levels = min(levels, max(_automatic_levels(p.sift[0].shape[:2]) for p in (a, b)))
    top_window = settings.top_window
    if top_window == 0:
        longest = max(b.sift[levels - 1].shape[:2])  # the flow is in pixels of the target
        top_window = max(2, int(np.ceil(REACH * longest)))
    return settings.model_copy(update={"levels": levels, "top_window": top_window})


def _swapped(seeds: Int64[np.ndarray, "m 2"] | None) -> Int64[np.ndarray, "m 2"] | None:
    """Matches of B and A from those of A and B."""
    return None if seeds is None else seeds[:, ::-1]


def _subset(points: InterestPoints, index: Any) -> InterestPoints:
    return InterestPoints(
        points.xy[index], points.sigma[index], points.orientation[index], points.descriptors[index]
    )
