"""Verdict on a model: figures, how far it can be trusted, and the reasons in words that need no expert.

``docs/trust.md`` says what was measured, and what was not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy import sparse

from recon.core.colmap import pycolmap
from recon.graph.contradictions import (
    chance_of_so_many,
    missing_pairs,
    model_contradictions,
    overlap_shares,
)
from recon.graph.loops import STRONG
from recon.graph.types import Tracks, ViewGraph
from recon.photos.types import PhotoSet
from recon.sfm.adapter import points_of_tracks, posed_cameras
from recon.sfm.camera_tests import OTHER_CENTRE_THAN_GIVEN, OTHER_THAN_GIVEN, CameraTest
from recon.sfm.evidence import (
    ModelArrays,
    TurnFit,
    centre_differences,
    model_arrays,
    noise_px,
    parallax,
    spread_of_points,
    systematic_px,
    turn_fit,
    uncertainty,
    used_share,
)

Verdict = Literal["sound", "doubtful", "not a reconstruction"]
VERDICTS: tuple[Verdict, ...] = ("sound", "doubtful", "not a reconstruction")
MEANING = {
    "doubtful": "the cameras, and all that is made from them, may be wrong or stretched",
    "not a reconstruction": "the cameras mean nothing, nor does what is made from them",
}
IN_PART = "a part of what was photographed is missing"

# A turn of the camera explains a track that it misses by less than this many pixels, or than this many standard
# deviations of the observations, whichever is more.
TURN_TOLERANCE_PX = 1.0
TURN_TOLERANCE_NOISE = 3.0
# Pairs of photos whose shared tracks the model mostly throws away: those with so many tracks, and with a smaller share.
PAIR_TRACKS = 20
PAIR_KEPT = 0.3
# Where a homography explains more of the pairs than this, the thing is flat or the camera only turned.
ALL_PLANAR = 0.9
# Intrinsics outside of these are those of no usual camera: focal length over the longest side, distance of the
# principal point from the middle over the diagonal, factor between the focal length found and the one EXIF tells.
PLAUSIBLE_FOCAL = (0.35, 8.0)
PLAUSIBLE_CENTRE = 0.08
PLAUSIBLE_PRIOR = 1.2
# A photo with fewer points, or with points in a smaller share of its area, is held loosely.
MIN_POINTS = 30
MIN_SPREAD = 0.12
# A photo of whose sure depth others confirm less than this share, and look through the rest, does not fit to them.
PHOTO_AGREES = 0.7
# Deviations from the adjustment alone are too small, since neighbouring tracks err alike: this makes up for it. Summed
# over blocks of the photos instead of single tracks, they are 1.2 to 1.4 times as large on real scenes.
COVARIANCE_FACTOR = 1.4
# No camera is exactly what its model says (lens, shutter, given intrinsics), and no truth is exact: as a share of the
# extent, what fountain-P11 and Herz-Jesus-P8 differ by from their truth; tracks alone would promise a fifth of it.
MODEL_DEVIATION = 2e-4


# Each half of the tracks errs by about 1.4 times what both do, so halves differ by about twice the error of the whole.
HALVES_FACTOR = 0.5


@dataclass(frozen=True)
class Thresholds:
    """Beyond which figures a model is not sound; ``benchmarks/trust_calibration.py`` measures them.

    Attributes:
        turns_only, turns_mostly: share of the tracks that turns explain: a model is none; it has hardly any parallax.
        hardly_used, little_used: share of the tracks that became points: the model explains next to nothing; a part.
        centre_deviation: of the camera centres, as a share of the extent.
        focal_deviation: of focal lengths, relative.
        halves_difference: mean distance of the centres from two halves of the tracks, as a share of the extent. Each
            half errs by about 1.4 times what both do, so the difference is about twice the error of the whole.
        systematic_px, systematic_share: residuals that depend on the place in the photo: pixels, and share of the
            noise; both must be passed.
        contradicted: share of the pairs of photos whose tracks the model mostly throws away.
        far_turn, far_direction: degrees of rotation or direction by which a strong pair contradicts the model.
        far_chance: chance that so many strong pairs are wrong and the model right, below which they are a doubt.
        missing_pairs, missing_share: how many of the pairs that were tried, and that must match by the model, may not
            have matched, and which share of them; both must be passed.
        given_moves, given_bends: up to which movement of the centres (share of their extent) and of the points (share
            of the scene) it does not matter that the photos speak for other cameras.
        open_moves: movement of the centres by other cameras that are only likely, from which it matters.
        told_focal: deviation of a focal length (relative) up to which the photos are believed against EXIF.
        crossed: share of the photos whose depth others look through; two at least.
        loose: share of the photos that are held loosely.
        angle, base: degrees and base to depth below which depth is hardly determined.
    """

    turns_only: float = 0.85
    turns_mostly: float = 0.6
    hardly_used: float = 0.1
    little_used: float = 0.45
    centre_deviation: float = 0.01
    focal_deviation: float = 0.05
    halves_difference: float = 0.02
    systematic_px: float = 0.12
    systematic_share: float = 0.4
    contradicted: float = 0.15
    far_turn: float = 8.0
    far_direction: float = 45.0
    far_chance: float = 0.25
    missing_pairs: int = 2
    missing_share: float = 0.3
    given_moves: float = 0.008
    given_bends: float = 0.01
    open_moves: float = 0.01
    told_focal: float = 0.01
    crossed: float = 0.2
    loose: float = 0.2
    angle: float = 2.0
    base: float = 0.03


@dataclass(frozen=True)
class Figures:
    """Figures behind a verdict.

    Attributes:
        photos, registered, models: photos of the run, photos of the model, models that were found.
        second_model: photos of the second largest model.
        gaps: see ``MappingFacts``.
        tracks, tracks_used: that two photos of the model or more see, and those of them that became points.
        noise_px: standard deviation per axis of an observation, from the residuals.
        turns_explain, turns_miss_px: share of the tracks that a camera which only turned explains; median miss.
        planar_pairs: share of the verified pairs that a homography explains.
        angle, base_to_depth: median triangulation angle (degrees) and base to depth.
        centre_deviation, worst_centre_deviation: standard deviation of the camera centres (root mean square, and
            of the worst photo), as shares of the extent.
        focal_deviation: largest relative standard deviation of a focal length.
        halves_difference, worst_halves_difference: mean and largest distance of the centres that two halves of the
            tracks give, as shares of the extent; None where halves are too small.
        systematic_px: largest part of the residuals of a camera that depends on the place in the image.
        contradicted_pairs: share of the pairs of photos whose tracks the model mostly throws away.
        far_pairs: pairs of photos, by name, whose own relative pose is likely right and far from the model's.
        far_share: their share of the likely pairs.
        far_chance: the chance that so many or more of the likely pairs are wrong, and the model is right.
        missing_pairs: pairs of photos, by name, that the model says must match, and that were tried in vain.
        missing_share: their share of the tried pairs that must match.
        loose_photos: photos held by few or clumped points.
        odd_cameras: intrinsics outside of what is usual, in words.
        odd_focal: focal lengths far from what EXIF tells, in words.
        intrinsics_fixed: the photos see the scene under angles too small to tell focal lengths.
        guessed_focal: some focal length is neither given nor in EXIF.
        camera_tests: what held-out tracks said of other cameras than those that were assumed.
        cameras_open: tests spoke for other cameras than those of the model.
    """

    photos: int
    registered: int
    models: int
    second_model: int
    tracks: int
    tracks_used: int
    noise_px: float
    turns_explain: float
    turns_miss_px: float
    planar_pairs: float
    angle: float
    base_to_depth: float
    centre_deviation: float
    worst_centre_deviation: float
    focal_deviation: float
    halves_difference: float | None
    worst_halves_difference: float | None
    systematic_px: float
    contradicted_pairs: float
    far_pairs: tuple[str, ...] = ()
    far_share: float = 0.0
    far_chance: float = 1.0
    missing_pairs: tuple[str, ...] = ()
    missing_share: float = 0.0
    gaps: tuple[str, ...] = ()
    loose_photos: tuple[str, ...] = ()
    odd_cameras: tuple[str, ...] = ()
    odd_focal: tuple[str, ...] = ()
    intrinsics_fixed: bool = False
    guessed_focal: bool = False
    camera_tests: tuple[CameraTest, ...] = ()
    cameras_open: bool = False

    @property
    def open_moves(self) -> float:
        """Distance by which cameras that the photos speak for, and that are not the model's, would move the centres."""
        return sum(test.moves for test in self.camera_tests if test.taken) if self.cameras_open else 0.0

    @property
    def open_bends(self) -> float:
        """Distance by which they would move the points."""
        return sum(test.bends for test in self.camera_tests if test.taken) if self.cameras_open else 0.0

    @property
    def stated_deviation(self) -> float:
        """Standard deviation of the camera centres, by the tracks or by two halves of them, with what other cameras
        would change."""
        halves = HALVES_FACTOR * (self.halves_difference or 0.0)
        return math.hypot(max(self.centre_deviation, halves), self.open_moves)

    @property
    def used_share(self) -> float:
        """Share of the tracks that became points."""
        return self.tracks_used / max(self.tracks, 1)


@dataclass(frozen=True)
class Reason:
    """Reason against a model: what was seen, what to do, and how bad it is.

    Attributes:
        in_part: the model is incomplete, which does not make it wrong.
    """

    verdict: Verdict
    what: str
    advice: str
    in_part: bool = False


@dataclass(frozen=True)
class Trust:
    """The verdict on a model with its reasons, worst first, and the figures that it rests on."""

    verdict: Verdict
    reasons: tuple[Reason, ...]
    figures: Figures

    def as_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        every = asdict(self.figures) | {
            name: getattr(self.figures, name) for name in ("stated_deviation", "open_moves", "open_bends")
        }
        figures = {
            key: round(value, 6) if isinstance(value, float) and math.isfinite(value) else value
            for key, value in every.items()
        }
        figures = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in figures.items()
        }
        return {
            "verdict": self.verdict,
            "reasons": [asdict(reason) for reason in self.reasons],
            "figures": figures,
        }


@dataclass(frozen=True)
class MappingFacts:
    """Facts of mapping beside the model itself.

    Attributes:
        models: number of photos of every model that was found, the largest first.
        gaps: pairs of photo names, one of the first model and one of another, between which photos would join them.
        intrinsics_fixed: focal lengths stayed as guessed since the angles do not tell them.
        free_centre: principal points were adjusted.
        tests: of the cameras, on tracks held out.
        cameras_open: they spoke for other cameras than those of the model.
    """

    models: tuple[int, ...] = ()
    gaps: tuple[str, ...] = ()
    intrinsics_fixed: bool = False
    free_centre: bool = False
    tests: tuple[CameraTest, ...] = ()
    cameras_open: bool = False


def figures_of(
    model: pycolmap.Reconstruction,
    photos: PhotoSet,
    graph: ViewGraph,
    tracks: Tracks,
    *,
    facts: MappingFacts | None = None,
    tried: Iterable[tuple[int, int]] = (),
    halves: tuple[Mapping[int, Float[np.ndarray, "3"]], Mapping[int, Float[np.ndarray, "3"]]] | None = None,
    seed: int = 0,
) -> Figures:
    """Gather what speaks for and against a model.

    Args:
        tracks: those whose observations are the model's keypoints.
        tried: pairs of photos (ids) that were matched, or found not to match.
        halves: camera centres by photo id from two halves of the tracks.
    """
    facts = facts or MappingFacts()
    arrays = model_arrays(model, photos)
    noise = noise_px(arrays)
    xyz, held = points_of_tracks(model, photos, tracks)
    used, seen = used_share(tracks, arrays, np.isfinite(xyz).all(axis=1))
    planar, turns = _planar_and_turns(tracks, photos, graph, arrays, noise, seed)
    seen_under = parallax(arrays)
    extent = max(arrays.extent, 1e-300)
    spread = uncertainty(arrays, free_centre=facts.free_centre)
    centre = np.hypot(COVARIANCE_FACTOR * spread.centre / extent, MODEL_DEVIATION)
    differences = None if halves is None else centre_differences(*halves) / extent
    count, share = spread_of_points(arrays)
    loose = (count < MIN_POINTS) | (share < MIN_SPREAD)
    names = [photos.photos[i].name for i in arrays.photos.tolist()]
    # Poses of pairs that were told by other cameras than the model's say nothing of it.
    changed = not facts.cameras_open and any(test.taken for test in facts.tests)
    far, far_share, far_chance = ((), 0.0, 1.0) if changed else far_pairs(model, photos, graph)
    missing, must = _missing(model, photos, graph, arrays, tried)
    odd, odd_focal = odd_cameras(arrays, photos, centres_tested=facts.free_centre)
    return Figures(
        photos=len(photos.photos),
        registered=len(arrays.photos),
        models=max(len(facts.models), 1),
        second_model=facts.models[1] if len(facts.models) > 1 else 0,
        gaps=facts.gaps,
        tracks=seen,
        tracks_used=used,
        noise_px=noise,
        turns_explain=turns.share,
        turns_miss_px=turns.rms_px,
        planar_pairs=planar,
        angle=seen_under.angle,
        base_to_depth=seen_under.base_to_depth,
        centre_deviation=float(np.sqrt((centre**2).mean())),
        worst_centre_deviation=float(centre.max(initial=0.0)),
        focal_deviation=float(COVARIANCE_FACTOR * spread.focal.max(initial=0.0)),
        halves_difference=None if differences is None else float(differences.mean()),
        worst_halves_difference=None if differences is None else float(differences.max()),
        systematic_px=float(systematic_px(arrays).max(initial=0.0)),
        contradicted_pairs=contradicted_share(tracks, arrays, held),
        far_pairs=far,
        far_share=far_share,
        far_chance=far_chance,
        missing_pairs=missing,
        missing_share=len(missing) / max(must, 1),
        loose_photos=tuple(name for name, one in zip(names, loose.tolist(), strict=True) if one),
        odd_cameras=odd,
        odd_focal=odd_focal,
        intrinsics_fixed=facts.intrinsics_fixed,
        guessed_focal=any(not (camera.known or camera.has_focal_prior) for camera in photos.cameras),
        camera_tests=facts.tests,
        cameras_open=facts.cameras_open,
    )


def _planar_and_turns(
    tracks: Tracks, photos: PhotoSet, graph: ViewGraph, arrays: ModelArrays, noise: float, seed: int
) -> tuple[float, TurnFit]:
    """The share of the pairs that a plane or a turn explains, and how much of the tracks turns explain."""
    edges = [edge["model"] for _, _, edge in graph.edges(data=True)]
    planar = sum(one == "H" for one in edges) / max(len(edges), 1)
    turns = turns_of(tracks, photos, arrays.photos, noise, seed)
    if planar > ALL_PLANAR:  # of a flat thing, or from one place; then photos may have been zoomed as well
        zoomed = turns_of(tracks, photos, arrays.photos, noise, seed, zoomed=True)
        turns = max(turns, zoomed, key=lambda one: one.share)
    return planar, turns


def turns_of(
    tracks: Tracks,
    photos: PhotoSet,
    chosen: np.ndarray | None,
    noise: float,
    seed: int = 0,
    *,
    zoomed: bool = False,
) -> TurnFit:
    """Fit a camera that only turned to the tracks, within the noise that a model of them shows."""
    tolerance = max(TURN_TOLERANCE_PX, TURN_TOLERANCE_NOISE * noise)
    return turn_fit(tracks, photos, chosen, tolerance_px=tolerance, zoomed=zoomed, seed=seed)


def far_pairs(
    model: pycolmap.Reconstruction,
    photos: PhotoSet,
    graph: ViewGraph,
    thresholds: Thresholds | None = None,
) -> tuple[tuple[str, ...], float, float]:
    """The likely pairs whose own pose is far from the model's, "a and b"; their share of the likely pairs; the chance
    that so many or more of these are wrong.

    With a guessed focal length the pose of a right pair may be far off too: such pairs are not asked.
    """
    limits = thresholds or Thresholds()
    poses = {i: camera.cam_from_world for i, camera in posed_cameras(model, photos).items()}
    for photo in photos.photos:
        camera = photos.cameras[photo.camera]
        if not (camera.known or camera.has_focal_prior):
            poses.pop(photo.id, None)
    found = model_contradictions(graph, poses, min_evidence=STRONG)
    far = [one for one in found.pairs if one.turn > limits.far_turn or one.direction > limits.far_direction]
    names = tuple(" and ".join(photos.photos[i].name for i in one.pair) for one in far)
    return names, len(far) / max(len(found.wrong), 1), chance_of_so_many(found.wrong, len(far))


def _missing(
    model: pycolmap.Reconstruction,
    photos: PhotoSet,
    graph: ViewGraph,
    arrays: ModelArrays,
    tried: Iterable[tuple[int, int]],
) -> tuple[tuple[str, ...], int]:
    """The tried pairs that the model says must match and that did not, "a and b"; how many must match."""
    posed = posed_cameras(model, photos)
    seen = {i: arrays.xyz[arrays.point[arrays.photo == row]] for row, i in enumerate(arrays.photos.tolist())}
    poses = {i: camera.cam_from_world for i, camera in posed.items()}
    shares = overlap_shares(tried, poses, {i: camera.intrinsics for i, camera in posed.items()}, seen)
    missing, must = missing_pairs(shares, graph)
    return tuple(" and ".join(photos.photos[i].name for i in pair) for pair in missing), must


def contradicted_share(tracks: Tracks, model: ModelArrays, held: np.ndarray) -> float:
    """Share of the pairs of photos with enough common tracks of which the model holds few."""
    n = len(model.photos)
    inside = np.isin(tracks.photo_id, model.photos)
    photo = np.searchsorted(model.photos, tracks.photo_id[inside])
    track, kept = tracks.track_id[inside], held[inside]

    def common(rows: np.ndarray) -> np.ndarray:
        ones = np.ones(int(rows.sum()), np.float32)
        seen = sparse.csr_array((ones, (photo[rows], track[rows])), (n, tracks.count))
        return np.asarray((seen @ seen.T).toarray())

    every, agreed = common(np.ones(len(photo), bool)), common(kept)
    upper = np.triu(every >= PAIR_TRACKS, 1)
    return float((agreed[upper] < PAIR_KEPT * every[upper]).mean()) if upper.any() else 0.0


def odd_cameras(
    model: ModelArrays, photos: PhotoSet, *, centres_tested: bool = False
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Describe what is unusual about the intrinsics that were estimated, one sentence each; what EXIF tells otherwise.

    Args:
        centres_tested: tracks held out spoke for principal points far from the middle, as cropped photos have.
    """
    found: list[str] = []
    otherwise: list[str] = []
    for number, camera in enumerate(model.cameras):
        if model.known[number]:
            continue
        first = photos.photos[int(model.photos[model.camera == number][0])]
        longest, diagonal = max(camera.width, camera.height), math.hypot(camera.width, camera.height)
        focal = camera.mean_focal_length()
        away = math.hypot(
            camera.principal_point_x - camera.width / 2, camera.principal_point_y - camera.height / 2
        )
        prior = photos.cameras[first.camera]
        told = float(np.sqrt(prior.K[0, 0] * prior.K[1, 1]))
        where = f"the camera of {first.name}"
        if not PLAUSIBLE_FOCAL[0] <= focal / longest <= PLAUSIBLE_FOCAL[1]:
            found.append(
                f"{where} has a focal length of {focal / longest:.2f} times its photos' longest side"
            )
        elif prior.has_focal_prior and not 1 / PLAUSIBLE_PRIOR <= focal / told <= PLAUSIBLE_PRIOR:
            otherwise.append(
                f"{where} has {focal / told:.2f} times the focal length that the photo's data (EXIF) tell"
            )
        if away / diagonal > PLAUSIBLE_CENTRE and not centres_tested:
            found.append(f"{where} looks {away / diagonal:.0%} of the diagonal past the middle of its photos")
    return tuple(found), tuple(otherwise)


def judge(figures: Figures, thresholds: Thresholds | None = None) -> Trust:
    """The verdict that the figures give, with all its reasons."""
    t = thresholds or Thresholds()
    reasons = [
        *_no_depth(figures, t),
        *_uncertain(figures, t),
        *_contradicted(figures, t),
        *_incomplete(figures),
    ]
    reasons.sort(key=lambda reason: -VERDICTS.index(reason.verdict))
    verdict = reasons[0].verdict if reasons else "sound"
    return Trust(verdict, tuple(reasons), figures)


DEPTH_FIGURES = (
    "depth_agreement", "crossed_photos", "depth_maps", "prediction", "prediction_px", "worst_prediction_px",
    "predicted_share",
)  # fmt: skip
"""Of the counts of the stage ``depth``, those that stand beside a verdict."""


def depth_figures(agreement: Sequence[float | None]) -> dict[str, Any]:
    """``DEPTH_FIGURES``: how the depths of the photos go together.

    Args:
        agreement: of each photo, the share of its sure depth that others confirm rather than look through; None
            without any.
    """
    known = [one for one in agreement if one is not None]
    if not known:
        return {"depth_maps": len(agreement)}
    median, crossed = round(float(np.median(known)), 3), sum(one < PHOTO_AGREES for one in known)
    return {"depth_maps": len(agreement), "depth_agreement": median, "crossed_photos": crossed}


def depth_reason(figures: Mapping[str, Any], thresholds: Thresholds | None = None) -> Reason | None:
    """The reason against cameras whose photos give depths that do not fit together; None without one.

    Args:
        figures: of ``depth_figures``, among others.
    """
    crossed, photos = figures.get("crossed_photos", 0), figures.get("depth_maps", 0)
    if crossed < 2 or crossed <= (thresholds or Thresholds()).crossed * photos:
        return None
    return Reason(
        "doubtful",
        f"The depths of {crossed} of {photos} photos do not fit to those of the others, which look through what these "
        "photos see",
        "Look at the cameras in the report: repeated things (windows, tiles) may be mistaken for each other, so that "
        "photos stand in a wrong place",
    )


def with_depth(trust: Mapping[str, Any], figures: Mapping[str, Any]) -> dict[str, Any]:
    """A verdict as ``Trust.as_json`` gives it, with what the depth of the photos adds (``depth_figures``)."""
    if not figures:
        return dict(trust)
    reason = depth_reason(figures)
    reasons = [*trust["reasons"], *([] if reason is None else [asdict(reason)])]
    reasons.sort(key=lambda one: -VERDICTS.index(one["verdict"]))
    verdict = reasons[0]["verdict"] if reasons else trust["verdict"]
    return {
        **trust,
        "verdict": verdict,
        "reasons": reasons,
        "figures": {**(trust["figures"] or {}), **figures},
    }


def meaning(trust: Mapping[str, Any]) -> str:
    """Meaning of a verdict that is not *sound*, as ``Trust.as_json`` gives it, for what is made of the model."""
    if all(one.get("in_part") for one in trust["reasons"]):
        return IN_PART
    return MEANING[trust["verdict"]]


def trust_in_words(trust: Mapping[str, Any]) -> str:
    """A verdict as ``Trust.as_json`` gives it, in one or a few sentences."""
    reasons = " ".join(f"Why: {one['what']}. What to do: {one['advice']}." for one in trust["reasons"])
    figures = trust["figures"]
    taken = [test["what"] for test in figures.get("camera_tests", ()) if test["taken"]]
    if taken and not figures["cameras_open"]:
        reasons = f"{reasons} The photos spoke for {', '.join(taken)}, so that was used.".lstrip()
    elif taken and taken[-1] not in reasons:
        reasons = (
            f"{reasons} The photos speak for {taken[-1]}; those would move the cameras by only "
            f"{figures['open_moves']:.1%} and the points by {figures['open_bends']:.1%}, so nothing was changed."
        ).lstrip()
    otherwise = figures.get("odd_focal", ())
    if otherwise and otherwise[0] not in reasons:
        reasons = (
            f"{reasons} {otherwise[0][0].upper()}{otherwise[0][1:]}; the photos tell theirs well.".lstrip()
        )
    if trust["reasons"]:
        return f"{trust['verdict']}: {meaning(trust)}. {reasons}"
    return (
        f"{trust['verdict']}. Camera positions are good to about {figures['stated_deviation']:.2%} of the "
        f"distance between the outermost cameras (one standard deviation); points are seen under "
        f"{figures['angle']:.0f} degrees in the median, and {figures['tracks_used']} of {figures['tracks']} points "
        f"that the photos have in common fit. {reasons}".rstrip()
    )


MOVE = (
    "Move between photos: walk sideways by about a tenth of the distance to what you photograph, and keep "
    "two thirds of each photo in the next"
)


def only_turns(turns: TurnFit) -> Reason:
    """The reason of a camera that only turned."""
    return Reason(
        "not a reconstruction",
        f"The camera only turned: {turns.share:.0%} of what the photos have in common is explained without any "
        "movement, so nothing tells how far things are (a panorama from one place)",
        MOVE,
    )


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")


def _no_depth(f: Figures, t: Thresholds) -> list[Reason]:
    """Reasons of photos that say nothing, or little, of depth."""
    if f.turns_explain >= t.turns_only:
        return [only_turns(TurnFit(f.turns_explain, f.turns_miss_px, f.tracks))]
    if f.used_share < t.hardly_used:
        return [
            Reason(
                "not a reconstruction",
                f"Only {f.tracks_used} of {f.tracks} points that the photos have in common fit the cameras: the "
                "model explains next to nothing of what was seen",
                f"{MOVE}. Of a fisheye or 360° camera, give its calibration with --intrinsics",
            )
        ]
    reasons = []
    if f.turns_explain >= t.turns_mostly or f.angle < t.angle or f.base_to_depth < t.base:
        reasons.append(
            Reason(
                "doubtful",
                f"The camera hardly moved: {f.turns_explain:.0%} of what the photos have in common is explained by "
                f"turning alone, and points are seen under {f.angle:.1f} degrees; depths are uncertain",
                MOVE,
            )
        )
    if f.intrinsics_fixed and f.guessed_focal:
        reasons.append(
            Reason(
                "doubtful",
                "The photos see the scene under small angles, which do not tell focal lengths: a first guess "
                "stays, and depths may be stretched",
                "Give --intrinsics, or add photos from further aside",
            )
        )
    return reasons


def _uncertain(f: Figures, t: Thresholds) -> list[Reason]:
    """Reasons of cameras that the tracks do not hold well."""
    reasons = []
    halves = f.halves_difference
    if f.centre_deviation > t.centre_deviation:
        reasons.append(
            Reason(
                "doubtful",
                f"Camera positions are uncertain by {f.centre_deviation:.1%} of the distance between the outermost "
                "cameras",
                "Add photos from between and from further aside, or use a higher --quality",
            )
        )
    if f.focal_deviation > t.focal_deviation:
        reasons.append(
            Reason(
                "doubtful",
                f"The focal length is uncertain by {f.focal_deviation:.0%}: photos of a flat thing taken straight "
                "on, or from a distance, do not tell it",
                "Give --intrinsics, or add photos taken at an angle and from nearer",
            )
        )
    if halves is not None and halves > t.halves_difference:
        reasons.append(
            Reason(
                "doubtful",
                f"Two halves of the matches give cameras that differ by {halves:.1%} of the distance between the "
                "outermost cameras",
                "Add photos that overlap more, or use a higher --quality",
            )
        )
    if len(f.loose_photos) > t.loose * f.registered:
        reasons.append(
            Reason(
                "doubtful",
                f"{len(f.loose_photos)} of {f.registered} photos are held by few points or by points in one "
                f"corner: {_some(f.loose_photos)}",
                "Add photos that overlap these by two thirds",
            )
        )
    return reasons


def _other_cameras(f: Figures, t: Thresholds) -> list[Reason]:
    """Reasons of cameras that the photos speak for, or may speak for, instead of the model's."""
    spoken = [test for test in f.camera_tests if test.taken]
    if f.cameras_open and spoken:
        if f.open_moves <= t.given_moves and f.open_bends <= t.given_bends:
            return []
        given = spoken[-1].what in (OTHER_THAN_GIVEN, OTHER_CENTRE_THAN_GIVEN)
        factor = math.prod(test.focal for test in spoken)
        focal = f" (a focal length {factor:.2f} times as long)" if given and abs(factor - 1) > 0.01 else ""
        return [
            Reason(
                "doubtful",
                f"The photos {'do not agree with the given intrinsics: they ' if given else ''}speak for "
                f"{spoken[-1].what}{focal}. With those, points that took no part in the fit miss by "
                f"{spoken[-1].after_px:.2f} instead of {spoken[0].before_px:.2f} pixels, the cameras move by "
                f"{f.open_moves:.1%} of the distance between the outermost ones, and the points by {f.open_bends:.1%} "
                "of the size of the scene",
                "Leave out --intrinsics, or give those of this camera and lens at this focus, zoom and crop"
                if given
                else "Try --camera-sharing per-photo, or give --intrinsics",
            )
        ]
    last = max((i for i, test in enumerate(f.camera_tests) if test.taken), default=-1)
    likely = [test for test in f.camera_tests[last + 1 :] if test.likely and test.moves > t.open_moves]
    if not likely:
        return []
    most = max(likely, key=lambda test: test.standard_errors)
    return [
        Reason(
            "doubtful",
            f"The photos do not tell for certain what cameras took them: {most.what} would fit as well or better, and "
            f"would put the cameras elsewhere by {most.moves:.1%} of the distance between the outermost ones",
            "Give --intrinsics, or add photos that overlap these by two thirds; if photos were zoomed or cropped, try "
            "--camera-sharing per-photo",
        )
    ]


def _contradicted(f: Figures, t: Thresholds) -> list[Reason]:
    """Reasons of evidence that speaks against the model."""
    reasons = _other_cameras(f, t)
    if f.systematic_px > max(t.systematic_px, t.systematic_share * f.noise_px):
        reasons.append(
            Reason(
                "doubtful",
                f"What does not fit depends on the place in the photo ({f.systematic_px:.2f} pixels): the lens bends "
                "the picture in a way that the camera model does not follow, or photos of different lenses, zooms "
                "or crops were taken for those of one",
                "Try --camera-model OPENCV, or --camera-sharing per-photo if photos were zoomed or "
                "cropped, or give --intrinsics",
            )
        )
    if f.used_share < t.little_used:
        reasons.append(
            Reason(
                "doubtful",
                f"Only {f.used_share:.0%} of the points that the photos have in common fit the cameras",
                "Repeated things (windows, tiles) may be mistaken for each other, or the camera model may be "
                "wrong: compare the cameras in the report with where you stood",
            )
        )
    # Poses of pairs that were told by a wrong EXIF say nothing of a model that found the focal length.
    other_focal = f.odd_focal and f.focal_deviation <= t.told_focal
    if not other_focal and f.far_pairs and f.far_chance < t.far_chance:
        reasons.append(
            Reason(
                "doubtful",
                f"{len(f.far_pairs)} pairs of photos that match well say that their cameras stood otherwise, more than "
                f"chance explains: {_some(f.far_pairs)}",
                "Repeated things (windows, tiles) may be mistaken for each other: look where the cameras of these "
                "photos stand in the report",
            )
        )
    if len(f.missing_pairs) > t.missing_pairs and f.missing_share > t.missing_share:
        reasons.append(
            Reason(
                "doubtful",
                f"{len(f.missing_pairs)} pairs of photos should show the same things by where their cameras came to "
                f"stand, but do not match: {_some(f.missing_pairs)}",
                "Repeated things (windows, tiles) may be mistaken for each other: look whether these photos show the "
                "same place",
            )
        )
    if f.contradicted_pairs > t.contradicted:
        reasons.append(
            Reason(
                "doubtful",
                f"{f.contradicted_pairs:.0%} of the pairs of photos that match do not fit the cameras",
                "Repeated things (windows, tiles) may be mistaken for each other: compare the cameras in the "
                "report with where you stood, and add photos that join the parts",
            )
        )
    reasons += [
        Reason(
            "doubtful",
            f"Unusual camera: {odd}",
            "Give --intrinsics if you know them; see whether photos were cropped, zoomed or made by a 360° camera",
        )
        for odd in (*f.odd_cameras, *(f.odd_focal if f.focal_deviation > t.told_focal else ()))[:3]
    ]
    return reasons


def _incomplete(f: Figures) -> list[Reason]:
    """Reasons of photos that are not in the model."""
    if f.models > 1 and f.second_model >= 3:
        where = f"between {_some(f.gaps)}" if f.gaps else "that lead from one part to the other"
        return [
            Reason(
                "doubtful",
                f"The photos fall into {f.models} models that nothing joins: this one has {f.registered} of "
                f"{f.photos} photos, the next one {f.second_model}",
                f"Add photos {where}, or take the next model with --set map.model=1",
                in_part=True,
            )
        ]
    if f.registered < 0.5 * f.photos:
        return [
            Reason(
                "doubtful",
                f"Only {f.registered} of {f.photos} photos are in the model",
                "See 'Left out' for why; add photos that overlap by two thirds",
                in_part=True,
            )
        ]
    return []
