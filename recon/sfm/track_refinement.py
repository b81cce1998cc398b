"""Sub-pixel refinement of multi-view tracks: patches of all observations aligned to each other.

The unit of work is the alignment of one patch round a point of a source photo to a target photo by inverse-
compositional Gauss-Newton (Baker & Matthews, "Lucas-Kanade 20 Years On", IJCV 2004, section 3.2), with gain
and offset of the brightness projected out (Bartoli, "Groupwise Geometric and Photometric Direct Image
Registration", PAMI 2008) and Gaussian weights. Warps are 3x3 homographies of which an affine map (six
parameters) or a translation (two) is estimated.

``refine_tracks`` needs no cameras. It aligns every pair of observations of a track that see each other, and
solves for the
positions that agree with all these alignments: no photo is trusted more than the others but the one that
holds the anchor still. ``refine_with_geometry`` uses cameras: local planes give patch warps with perspective,
so that only translations are left.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int64

from recon.core.colmap import pycolmap
from recon.core.memory import BoundedCache, machine_memory
from recon.core.parallel import map_ordered
from recon.core.posed import Camera
from recon.graph.tracks import select_observations
from recon.graph.types import Tracks
from recon.photos.types import PhotoSet
from recon.sfm.adapter import points_of_tracks, posed_cameras
from recon.sfm.patch_alignment import BORDER, align_patches, solve_tracks

# Blurred copies of a photo for patches that are sampled at steps of 1, 2 and 4 pixels. A step of s pixels
# needs a blur of about 0.5 sqrt(s^2 - 1) against aliasing (as in SIFT's scale space, Lowe 2004).
LEVELS = 3
# Prior standard deviation of a plane's inverse-depth gradient, per pixel: 0.01 is a 70 degree slope at a
# focal length of 300 pixels. PLANE_NOISE is that of a measured affinity.
PLANE_PRIOR = 0.01
PLANE_NOISE = 0.01


# Observations that are worked on at once, but for what one track has more: each takes up to a kilobyte meanwhile.
_AT_ONCE = 16_384

_BLURRED_PART = 8
"""Blurred photos may take this part of the machine's memory where nothing else is said."""


@dataclass(frozen=True)
class RefinementSettings:
    """Settings for the alignment of patches. Lengths in pixels of the photos' working size.

    Attributes:
        radius: of the patch; it has (2 radius + 1)^2 samples.
        iterations: at most so many Gauss-Newton steps.
        max_shift: an observation that wants to move further is dropped.
        min_correlation: of the aligned patches (zero-mean normalised, -1…1).
        round_trip: alignments there and back that differ by more than this are not used.
        joint: align all pairs of observations of a track, not only reference against the others.
        max_partners: in a joint refinement, each observation is aligned with at most so many others.
        keep_unrefined: keep observations that could not be aligned where they were instead of dropping them.
        memory: bytes that blurred photos may take, 12 MB for one of 1024 x 768; None for an eighth of the machine's.
    """

    radius: int = 7
    iterations: int = 15
    max_shift: float = 4.0
    min_correlation: float = 0.8
    round_trip: float = 0.5
    joint: bool = True
    max_partners: int = 6
    keep_unrefined: bool = False
    memory: int | None = None


def refine_tracks(
    images: Mapping[int, Float32[np.ndarray, "h w"]] | Sequence[Float32[np.ndarray, "h w"]],
    tracks: Tracks,
    settings: RefinementSettings | None = None,
    *,
    threads: int = 1,
) -> Tracks:
    """Tracks with sub-pixel positions that agree photometrically across all views.

    Args:
        images: grey photos in 0…255 at working size, by photo id; NaN where no patch may reach.
        tracks: with or without references and affinities; without, the observation in the middle of a track's
            photos serves as reference and patches start unrotated and unscaled.
        threads: for the alignments; the result does not depend on it.

    Returns:
        The tracks without the observations that could not be aligned. Affinities are the refined ones.
    """
    settings = settings or RefinementSettings()
    tracks = with_references(tracks)
    assert tracks.affinity is not None
    assert tracks.is_reference is not None
    if len(tracks.track_id) == 0:
        return tracks
    pyramids = _Pyramids(images, np.unique(tracks.photo_id).tolist(), settings.memory)
    starts = np.nonzero(tracks.is_reference)[0]
    reference = np.empty(tracks.count, np.int64)
    reference[tracks.track_id[starts]] = starts
    rows = np.nonzero(~tracks.is_reference)[0]
    sources = reference[tracks.track_id[rows]]
    first = _align_rows(pyramids, tracks, tracks.xy, tracks.affinity, sources, rows, settings, threads)
    xy, affinity = tracks.xy.copy(), tracks.affinity.copy()
    xy[rows[first.good]] = first.xy[first.good]
    affinity[rows[first.good]] = first.affinity[first.good]
    kept = tracks.is_reference.copy()
    kept[rows[first.good]] = True
    if settings.joint:
        xy, kept = _joint(pyramids, tracks, xy, affinity, kept, first, sources, rows, settings, threads)
    refined = Tracks(tracks.track_id, tracks.photo_id, xy, tracks.is_reference, affinity)
    if settings.keep_unrefined:
        return refined
    return select_observations(refined, kept)


def with_references(tracks: Tracks) -> Tracks:
    """The same tracks with a reference each and affinities (identity where nothing is known)."""
    n = len(tracks.track_id)
    is_reference, affinity = tracks.is_reference, tracks.affinity
    counts = np.zeros(tracks.count, np.int64)
    if is_reference is not None:
        counts = np.bincount(tracks.track_id[is_reference], minlength=tracks.count)
    if is_reference is None or (counts != 1).any():
        # Tracks are sorted by photo: the middle observation has the views on both sides of it.
        length = np.bincount(tracks.track_id, minlength=tracks.count)
        middle = np.cumsum(length) - length + length // 2
        flags = np.zeros(n, bool) if is_reference is None else is_reference & (counts[tracks.track_id] == 1)
        flags[middle[counts != 1]] = True
        if affinity is not None:
            # Affinities start at the reference: re-base those of tracks that got a new one.
            base = np.empty((tracks.count, 2, 2))
            rows = np.nonzero(flags)[0]
            base[tracks.track_id[rows]] = affinity[rows]
            affinity = (affinity @ np.linalg.inv(base)[tracks.track_id]).astype(np.float32)
        is_reference = flags
    if affinity is None:
        affinity = np.broadcast_to(np.eye(2, dtype=np.float32), (n, 2, 2)).copy()
    return Tracks(tracks.track_id, tracks.photo_id, tracks.xy, is_reference, affinity)


def blur_levels(image: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "levels h2 w2"]:
    """The photo at full size, and blurred for patches that are sampled at steps of 2 and 4 pixels; each with its border
    repeated ``BORDER`` pixels outwards."""
    base = np.asarray(image, np.float32)
    levels = [base]
    for level in range(1, LEVELS):
        step = 2.0**level
        levels.append(cv2.GaussianBlur(base, (0, 0), 0.5 * float(np.sqrt(step * step - 1.0))))
    rim = (BORDER,) * 4
    return np.stack([cv2.copyMakeBorder(level, *rim, cv2.BORDER_REPLICATE) for level in levels])


class _Pyramids(Mapping[int, Float32[np.ndarray, "levels h w"]]):
    """Blurred photos by id, made when they are asked for; those used last stay while they fit into the memory."""

    def __init__(
        self,
        images: Mapping[int, Float32[np.ndarray, "h w"]] | Sequence[Float32[np.ndarray, "h w"]],
        photos: Sequence[int],
        memory: int | None,
    ) -> None:
        self._images, self._photos = images, photos
        self._cache = BoundedCache(machine_memory() // _BLURRED_PART if memory is None else memory)

    def __getitem__(self, photo: int) -> Float32[np.ndarray, "levels h w"]:
        return self._cache.get(photo, lambda: blur_levels(self._images[photo]), lambda one: one.nbytes)

    def __iter__(self) -> Iterator[int]:
        return iter(self._photos)

    def __len__(self) -> int:
        return len(self._photos)


@dataclass(frozen=True)
class _Alignment:
    """Aligned observations: positions and affinities in the target, and whether they can be used."""

    xy: Float32[np.ndarray, "n 2"]
    affinity: Float32[np.ndarray, "n 2 2"]
    correlation: Float32[np.ndarray, " n"]
    good: Bool[np.ndarray, " n"]

    @classmethod
    def of_none(cls, n: int) -> _Alignment:
        """Room for observations, none of them aligned yet."""
        return cls(
            np.zeros((n, 2), np.float32),
            np.zeros((n, 2, 2), np.float32),
            np.zeros(n, np.float32),
            np.zeros(n, bool),
        )

    def put(self, rows: slice, made: _Alignment) -> None:
        """Write what was found for some of the observations."""
        self.xy[rows], self.affinity[rows] = made.xy, made.affinity
        self.correlation[rows], self.good[rows] = made.correlation, made.good


def _align_rows(
    pyramids: Mapping[int, Float32[np.ndarray, "levels h w"]],
    tracks: Tracks,
    xy: Float32[np.ndarray, "n 2"],
    affinity: Float32[np.ndarray, "n 2 2"],
    sources: Int[np.ndarray, " m"],
    targets: Int[np.ndarray, " m"],
    settings: RefinementSettings,
    threads: int,
) -> _Alignment:
    """Each target observation aligned with its source observation, there and back."""
    found = _Alignment.of_none(len(targets))
    for some in _blocks(tracks.track_id[targets]):
        there = targets[some]
        base = np.linalg.inv(affinity[sources[some]].astype(np.float64))
        warps = affine_warps(xy[there], (affinity[there] @ base).astype(np.float32))
        made = _align_warps(
            pyramids, tracks, xy, warps, sources[some], there, settings, threads, parameters=6
        )
        found.put(some, made)
    return found


def _blocks(track: Int[np.ndarray, " n"]) -> Iterator[slice]:
    """Ranges of observations, by the track of each; none ends within a run of one track."""
    ends = np.r_[np.nonzero(np.diff(track))[0] + 1, len(track)]
    start = 0
    while start < len(track):
        end = int(ends[np.searchsorted(ends, min(start + _AT_ONCE, len(track)))])
        yield slice(start, end)
        start = end


def affine_warps(
    xy: Float[np.ndarray, "n 2"], affinity: Float[np.ndarray, "n 2 2"]
) -> Float[np.ndarray, "n 3 3"]:
    """Homographies that take an offset from the source point to the target pixel: d -> xy + affinity @ d."""
    warps = np.zeros((len(xy), 3, 3))
    warps[:, :2, :2] = affinity
    warps[:, :2, 2] = xy
    warps[:, 2, 2] = 1.0
    return warps


def _align_warps(
    pyramids: Mapping[int, Float32[np.ndarray, "levels h w"]],
    tracks: Tracks,
    xy: Float32[np.ndarray, "n 2"],
    warps: Float[np.ndarray, "m 3 3"],
    sources: Int[np.ndarray, " m"],
    targets: Int[np.ndarray, " m"],
    settings: RefinementSettings,
    threads: int,
    parameters: int,
) -> _Alignment:
    n = len(sources)
    out = _Alignment.of_none(n)
    pair_of = tracks.photo_id[sources].astype(np.int64) * (1 << 31) + tracks.photo_id[targets]
    order = np.argsort(pair_of, kind="stable")
    groups = np.split(order, np.nonzero(np.diff(pair_of[order]))[0] + 1) if n else []

    def work(group: np.ndarray) -> None:
        source = pyramids[int(tracks.photo_id[sources[group[0]]])]
        target = pyramids[int(tracks.photo_id[targets[group[0]]])]
        start = np.ascontiguousarray(xy[sources[group]], dtype=np.float64)
        there, found = align_patches(
            source,
            target,
            start,
            np.ascontiguousarray(warps[group]),
            settings.radius,
            settings.iterations,
            parameters,
        )
        landed = there[:, :2, 2] / there[:, 2:, 2]
        back, found_back = align_patches(
            target,
            source,
            landed,
            _inverse_warps(there, landed, start),
            settings.radius,
            settings.iterations,
            parameters,
        )
        miss = back[:, :2, 2] / back[:, 2:, 2] - start
        jacobian = warp_jacobians(there)
        # There and back are two measurements of one displacement: the mean favours neither photo's noise.
        corrected = landed - 0.5 * np.einsum("nij,nj->ni", jacobian, miss)
        moved = np.linalg.norm(corrected - warps[group, :2, 2] / warps[group, 2:, 2], axis=1)
        out.xy[group] = corrected
        out.affinity[group] = jacobian
        out.correlation[group] = np.minimum(found, found_back)
        scale = np.sqrt(np.abs(np.linalg.det(jacobian)))
        out.good[group] = (
            (np.minimum(found, found_back) >= settings.min_correlation)
            & (np.linalg.norm(miss, axis=1) * np.maximum(scale, 1.0) <= settings.round_trip)
            & (moved <= settings.max_shift * np.maximum(scale, 1.0))
            & np.isfinite(corrected).all(axis=1)
        )

    map_ordered(work, groups, threads)
    return out


def refine_with_geometry(
    images: Mapping[int, Float32[np.ndarray, "h w"]] | Sequence[Float32[np.ndarray, "h w"]],
    tracks: Tracks,
    model: pycolmap.Reconstruction,
    photos: PhotoSet,
    settings: RefinementSettings | None = None,
    *,
    threads: int = 1,
    only: Bool[np.ndarray, " n"] | None = None,
) -> tuple[Tracks, Bool[np.ndarray, " n"]]:
    """Tracks refined once more with known cameras: patches warped by local planes, positions estimated.

    The normal of a track's plane is the least-squares fit to the affinities of all its observations, given
    the cameras (Barath & Eichhardt, "Optimal Multi-view Surface Normal Estimation Using Affine
    Correspondences", IEEE TIP 2019; here with the plane as a gradient of inverse depth, in which the
    affinities are linear). Each patch then carries its whole perspective warp, lens distortion included, and
    only its position is left to estimate.

    Args:
        tracks: as they were written to the database that ``model`` comes from, with references and
        affinities.
        only: the observations to align; None for all.

    Returns:
        Tracks with the same rows, and which of them were aligned (rows of tracks that the model does not hold
        are not). Put them into the model with ``recon.sfm.adapter.move_observations`` and adjust it with
        ``refine_model``.
    """
    settings = settings or RefinementSettings()
    if tracks.is_reference is None or tracks.affinity is None:
        raise ValueError(
            "refine_with_geometry needs tracks with references and affinities: refine_tracks first"
        )
    xyz, held = points_of_tracks(model, photos, tracks)
    starts = np.nonzero(tracks.is_reference)[0]
    reference = np.full(tracks.count, -1, np.int64)
    reference[tracks.track_id[starts]] = starts
    usable = held & np.isfinite(xyz[tracks.track_id]).all(axis=1) & held[reference[tracks.track_id]]
    rows = np.nonzero(usable & ~tracks.is_reference)[0]
    cameras, gradient = posed_cameras(model, photos), None
    if only is not None:  # of these tracks all observations tell the plane
        rows = rows[np.isin(tracks.track_id[rows], tracks.track_id[only])]
        gradient = _plane_gradients(tracks, xyz, cameras, reference, rows, settings.radius)
        rows = rows[only[rows]]
    if len(rows) == 0:
        return tracks, np.zeros(len(tracks.track_id), bool)
    sources = reference[tracks.track_id[rows]]
    pyramids = _Pyramids(images, np.unique(tracks.photo_id).tolist(), settings.memory)
    aligned = _Alignment.of_none(len(rows))
    for some in _blocks(tracks.track_id[rows]):
        both = sources[some], rows[some]
        warps, sane, _ = _plane_warps(tracks, xyz, cameras, *both, settings.radius, gradient)
        made = _align_warps(pyramids, tracks, tracks.xy, warps, *both, settings, threads, parameters=2)
        aligned.put(some, replace(made, good=made.good & sane))
    good = aligned.good
    xy, affinity = tracks.xy.copy(), tracks.affinity.copy()
    xy[rows[good]] = aligned.xy[good]
    affinity[rows[good]] = aligned.affinity[good]
    done = np.zeros(len(tracks.track_id), bool)
    done[rows[good]] = True
    done[sources[good]] = True
    return Tracks(tracks.track_id, tracks.photo_id, xy, tracks.is_reference, affinity), done


def complete_tracks(
    images: Mapping[int, Float32[np.ndarray, "h w"]] | Sequence[Float32[np.ndarray, "h w"]],
    tracks: Tracks,
    model: pycolmap.Reconstruction,
    photos: PhotoSet,
    settings: RefinementSettings | None = None,
    *,
    max_angle: float = 1.0,
    threads: int = 1,
    only_in: Collection[int] | None = None,
    everywhere: Bool[np.ndarray, " t"] | None = None,
) -> Tracks:
    """Tracks with observations added where the model's points are seen in photos that the tracks do not reach.

    A point is projected into every registered photo that has no observation of it; where the patch of its
    reference, warped by its plane, is found there (within ``settings.max_shift``, by correlation, there and
    back), the track gains an observation. Wide baselines that the matcher could not bridge hold the model
    together.

    Args:
        tracks: as in ``refine_with_geometry``.
        max_angle: radians between the rays of reference and new photo; patches change too much beyond.
        only_in: ids of the photos to look in; None for all.
        everywhere: tracks that are looked for in all photos nevertheless.
    """
    settings = settings or RefinementSettings()
    if tracks.is_reference is None or tracks.affinity is None:
        raise ValueError("complete_tracks needs tracks with references and affinities: refine_tracks first")
    xyz, held = points_of_tracks(model, photos, tracks)
    starts = np.nonzero(tracks.is_reference & held)[0]
    if len(starts) == 0:
        return tracks
    reference = np.full(tracks.count, -1, np.int64)
    reference[tracks.track_id[starts]] = starts
    cameras = posed_cameras(model, photos)
    track_id, photo_id, predicted = _unseen_projections(
        tracks, xyz, cameras, reference, settings.radius, max_angle
    )
    if only_in is not None:
        track_id, photo_id, predicted = _some_projections(track_id, photo_id, predicted, only_in, everywhere)
    rows = np.nonzero(held & ~tracks.is_reference & (reference[tracks.track_id] >= 0))[0]
    if only_in is not None:
        rows = rows[np.isin(tracks.track_id[rows], np.concatenate([rows[:0], *track_id]))]
    gradient = _plane_gradients(tracks, xyz, cameras, reference, rows, settings.radius)
    added = sum(map(len, track_id))
    if added == 0:
        return tracks
    n = len(tracks.track_id)
    both = Tracks(
        np.concatenate([tracks.track_id, *track_id]).astype(np.int32),
        np.concatenate([tracks.photo_id, *photo_id]).astype(np.int32),
        np.concatenate([tracks.xy, *predicted]).astype(np.float32),
        np.concatenate([tracks.is_reference, np.zeros(added, bool)]),
        np.concatenate([tracks.affinity, np.zeros((added, 2, 2), np.float32)]),
    )
    assert both.is_reference is not None
    assert both.affinity is not None
    new = np.arange(n, n + added)
    pyramids = _Pyramids(images, np.unique(both.photo_id).tolist(), settings.memory)
    keep = np.ones(n + added, bool)
    for some in _blocks(new):
        mine = new[some]
        sources = reference[both.track_id[mine]]
        warps, sane, _ = _plane_warps(both, xyz, cameras, sources, mine, settings.radius, gradient)
        made = _align_warps(pyramids, both, both.xy, warps, sources, mine, settings, threads, parameters=2)
        keep[mine] = good = made.good & sane
        both.xy[mine[good]] = made.xy[good]
        both.affinity[mine[good]] = made.affinity[good]
    return select_observations(both, keep)


def _unseen_projections(
    tracks: Tracks,
    xyz: Float[np.ndarray, "t 3"],
    cameras: Mapping[int, Camera],
    reference: Int64[np.ndarray, " _"],
    radius: int,
    max_angle: float,
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Projections of points with a reference into photos that have no observation of them: per photo the tracks, the
    photo's id for each, and the pixels. ``max_angle`` in radians between the rays of reference and photo."""
    rays = np.zeros((tracks.count, 3))
    starts = reference[reference >= 0]
    for photo, camera in cameras.items():
        of_photo = starts[tracks.photo_id[starts] == photo]
        rays[tracks.track_id[of_photo]] = xyz[tracks.track_id[of_photo]] - camera.center
    rays /= np.maximum(np.linalg.norm(rays, axis=1, keepdims=True), 1e-12)
    track_id, photo_id, predicted = [], [], []
    for photo, camera in sorted(cameras.items()):
        wanted = reference >= 0
        wanted[tracks.track_id[tracks.photo_id == photo]] = False
        track = np.nonzero(wanted)[0]
        if len(track) == 0:
            continue
        direction = xyz[track] - camera.center
        direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-12)
        track = track[(direction * rays[track]).sum(axis=1) > np.cos(max_angle)]
        pixels = camera.pixels(camera.to_camera(xyz[track]))
        limit = np.array([camera.intrinsics.width, camera.intrinsics.height]) - 1 - radius
        with np.errstate(invalid="ignore"):
            use = (pixels >= radius).all(axis=1) & (pixels <= limit).all(axis=1)
        track_id.append(track[use])
        photo_id.append(np.full(int(use.sum()), photo))
        predicted.append(pixels[use])
    return track_id, photo_id, predicted


def _some_projections(
    track_id: Sequence[np.ndarray],
    photo_id: Sequence[np.ndarray],
    predicted: Sequence[np.ndarray],
    only_in: Collection[int],
    everywhere: Bool[np.ndarray, " t"] | None,
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Of ``_unseen_projections`` those into some photos, and those of some tracks."""
    masks = [
        np.isin(photo, list(only_in)) | (False if everywhere is None else everywhere[track])
        for track, photo in zip(track_id, photo_id, strict=True)
    ]
    one, other, third = (
        [values[mask] for values, mask in zip(parts, masks, strict=True)]
        for parts in (track_id, photo_id, predicted)
    )
    return one, other, third


def _plane_gradients(
    tracks: Tracks,
    xyz: Float[np.ndarray, "t 3"],
    cameras: Mapping[int, Camera],
    reference: Int64[np.ndarray, " _"],
    rows: Int[np.ndarray, " m"],
    radius: int,
) -> Float[np.ndarray, "t 2"]:
    """The planes of tracks, told by some of their observations; zero for tracks without one."""
    gradient = np.zeros((tracks.count, 2))
    for some in _blocks(tracks.track_id[rows]):
        mine = rows[some]
        sources = reference[tracks.track_id[mine]]
        gradient += _plane_warps(tracks, xyz, cameras, sources, mine, radius)[2]
    return gradient


def _plane_warps(
    tracks: Tracks,
    xyz: Float[np.ndarray, "t 3"],
    cameras: Mapping[int, Camera],
    sources: Int[np.ndarray, " m"],
    targets: Int[np.ndarray, " m"],
    radius: int,
    gradient: Float[np.ndarray, "t 2"] | None = None,
) -> tuple[Float[np.ndarray, "m 3 3"], Bool[np.ndarray, " m"], Float[np.ndarray, "t 2"]]:
    """Patch warps by local planes (the source point goes to the target's position), sanity, and the planes.

    Planes are gradients of inverse depth per track, estimated from the targets' affinities unless given.
    """
    assert tracks.affinity is not None
    start = tracks.xy[sources].astype(np.float64)
    depth = np.empty(len(sources))
    # Offsets: the point, one pixel along each axis for derivatives, and the corners of the patch.
    offsets = np.array([[0, 0], [1, 0], [0, 1], [-1, -1], [1, -1], [1, 1], [-1, 1]], float)
    offsets[3:] *= radius
    rays = np.empty((len(sources), len(offsets), 3))
    for photo in np.unique(tracks.photo_id[sources]):
        at = np.nonzero(tracks.photo_id[sources] == photo)[0]
        camera = cameras[int(photo)]
        depth[at] = camera.to_camera(xyz[tracks.track_id[sources[at]]])[:, 2]
        for k, offset in enumerate(offsets):
            rays[at, k] = camera.rays(start[at] + offset)
    # A plane's inverse depth is linear in the pixel: 1/z = (1 + g . offset) / z0. A point at an offset d
    # moves by z0 (dray/d offset - ray g) . d, and its image by the target's projection derivative times that:
    # linear in g.
    point = depth[:, None] * rays[:, 0]
    centre, derivative = _project(tracks, cameras, sources, targets, point)
    track = tracks.track_id[targets]
    if gradient is None:
        tangent = depth[:, None, None] * np.stack([rays[:, 1] - rays[:, 0], rays[:, 2] - rays[:, 0]], axis=2)
        along = np.einsum("nij,nj->ni", derivative, point)
        difference = tracks.affinity[targets] - derivative @ tangent
        # difference = -along g^T, so every row i gives g = -difference_i / along_i, weighted by along_i^2.
        weight = np.bincount(track, (along**2).sum(axis=1), minlength=tracks.count)
        gradient = np.stack(
            [
                -np.bincount(track, (along * difference[:, :, column]).sum(axis=1), minlength=tracks.count)
                for column in range(2)
            ],
            axis=1,
        )
        # Views with little parallax say little of the plane: the prior keeps it parallel to the photo then.
        gradient = gradient / (weight + (PLANE_NOISE / PLANE_PRIOR) ** 2)[:, None]
    slope = gradient[track]
    corners = np.empty((len(targets), 4, 2))
    sane = depth > 0
    for k in range(4):
        inverse = 1.0 + slope @ offsets[3 + k]
        sane &= inverse > 0.2
        corner = rays[:, 3 + k] * (depth / np.where(inverse > 0.2, inverse, 1.0))[:, None]
        corners[:, k], _ = _project(tracks, cameras, sources, targets, corner)
    warps = homographies(offsets[3:], corners - centre[:, None])
    sane &= np.isfinite(warps).all(axis=(1, 2))
    to_place = np.broadcast_to(np.eye(3), warps.shape).copy()
    to_place[:, :2, 2] = tracks.xy[targets]
    fallback = affine_warps(tracks.xy[targets], tracks.affinity[targets])
    warps = np.where(
        sane[:, None, None], to_place @ np.where(sane[:, None, None], warps, np.eye(3)), fallback
    )
    # The four corners fix the warp; its centre follows only nearly where the lens bends lines. Put it in
    # place.
    shift = tracks.xy[targets] - warps[:, :2, 2] / warps[:, 2:, 2]
    to_place[:, :2, 2] = shift
    return to_place @ warps, sane, gradient


def _project(
    tracks: Tracks,
    cameras: Mapping[int, Camera],
    sources: Int[np.ndarray, " m"],
    targets: Int[np.ndarray, " m"],
    point: Float[np.ndarray, "m 3"],
) -> tuple[Float[np.ndarray, "m 2"], Float[np.ndarray, "m 2 3"]]:
    """Images in the target photos of points given in the source cameras, with derivatives by the point."""
    xy = np.empty((len(point), 2))
    derivative = np.empty((len(point), 2, 3))
    pair = tracks.photo_id[sources].astype(np.int64) * (1 << 31) + tracks.photo_id[targets]
    for value in np.unique(pair):
        at = np.nonzero(pair == value)[0]
        source = cameras[int(tracks.photo_id[sources[at[0]]])]
        target = cameras[int(tracks.photo_id[targets[at[0]]])]
        rotation = target.cam_from_world[:, :3] @ source.cam_from_world[:, :3].T
        shift = target.cam_from_world[:, 3] - rotation @ source.cam_from_world[:, 3]
        moved = point[at] @ rotation.T + shift
        xy[at] = target.pixels(moved)
        step = 1e-4 * np.abs(moved[:, 2:3])
        for axis in range(3):
            nudge = np.zeros((1, 3))
            nudge[0, axis] = 1.0
            slope = (target.pixels(moved + step * nudge) - target.pixels(moved - step * nudge)) / (2 * step)
            derivative[at, :, axis] = slope
        derivative[at] = derivative[at] @ rotation
    return xy, derivative


def homographies(
    start: Float[np.ndarray, "4 2"], end: Float[np.ndarray, "n 4 2"]
) -> Float[np.ndarray, "n 3 3"]:
    """Homographies through four points each, H[2, 2] = 1; NaN where the end points are not finite."""
    n = len(end)
    A = np.zeros((n, 8, 8))
    b = np.zeros((n, 8))
    finite = np.isfinite(end).all(axis=(1, 2))
    end = np.where(finite[:, None, None], end, start)
    for k in range(4):
        x, y = start[k]
        u, v = end[:, k, 0], end[:, k, 1]
        A[:, 2 * k, 0], A[:, 2 * k, 1], A[:, 2 * k, 2] = x, y, 1.0
        A[:, 2 * k, 6], A[:, 2 * k, 7] = -u * x, -u * y
        A[:, 2 * k + 1, 3], A[:, 2 * k + 1, 4], A[:, 2 * k + 1, 5] = x, y, 1.0
        A[:, 2 * k + 1, 6], A[:, 2 * k + 1, 7] = -v * x, -v * y
        b[:, 2 * k], b[:, 2 * k + 1] = u, v
    regular = finite & (np.abs(np.linalg.det(A)) > 1e-9)
    A[~regular] = np.eye(8)
    h = np.linalg.solve(A, b[..., None])[..., 0]
    H = np.concatenate([h, np.ones((n, 1))], axis=1).reshape(n, 3, 3)
    H[~regular] = np.nan
    return H


def warp_jacobians(warps: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 2 2"]:
    """Derivatives of the warps at the source point (offset zero)."""
    w = warps[:, 2, 2][:, None, None]
    point = warps[:, :2, 2:3] / w
    return (warps[:, :2, :2] - point @ warps[:, 2:3, :2]) / w


def _inverse_warps(
    warps: Float[np.ndarray, "n 3 3"], landed: Float[np.ndarray, "n 2"], start: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "n 3 3"]:
    """Warps of the way back: an offset from the landed point to a pixel of the source photo."""
    from_offset = np.broadcast_to(np.eye(3), warps.shape).copy()
    from_offset[:, :2, 2] = landed
    to_pixel = np.broadcast_to(np.eye(3), warps.shape).copy()
    to_pixel[:, :2, 2] = start
    invertible = np.abs(np.linalg.det(warps)) > 1e-12
    safe = np.where(invertible[:, None, None], warps, np.eye(3))
    return np.ascontiguousarray(to_pixel @ np.linalg.inv(safe) @ from_offset)


def _joint(
    pyramids: Mapping[int, Float32[np.ndarray, "levels h w"]],
    tracks: Tracks,
    xy: Float32[np.ndarray, "n 2"],
    affinity: Float32[np.ndarray, "n 2 2"],
    kept: Bool[np.ndarray, " n"],
    first: _Alignment,
    first_sources: Int[np.ndarray, " m"],
    first_targets: Int[np.ndarray, " m"],
    settings: RefinementSettings,
    threads: int,
) -> tuple[Float32[np.ndarray, "n 2"], Bool[np.ndarray, " n"]]:
    """Positions that agree with the alignments of all pairs of observations of a track."""
    sources, targets = _partners(tracks, kept, settings.max_partners)
    more = _align_rows(pyramids, tracks, xy, affinity, sources, targets, settings, threads)
    source = np.concatenate([first_sources[first.good], sources[more.good]])
    target = np.concatenate([first_targets[first.good], targets[more.good]])
    landed = np.concatenate([first.xy[first.good], more.xy[more.good]]).astype(np.float64)
    relative = np.concatenate([first.affinity[first.good], more.affinity[more.good]]).astype(np.float64)
    measured = landed - xy[target]
    order = np.argsort(tracks.track_id[source], kind="stable")
    first_row = np.searchsorted(tracks.track_id, np.arange(tracks.count + 1))
    first_measurement = np.searchsorted(tracks.track_id[source][order], np.arange(tracks.count + 1))
    assert tracks.is_reference is not None
    shifts = solve_tracks(
        first_row.astype(np.int64),
        first_measurement.astype(np.int64),
        source[order].astype(np.int64),
        target[order].astype(np.int64),
        np.ascontiguousarray(measured[order]),
        np.ascontiguousarray(relative[order]),
        tracks.is_reference,
    )
    return (xy + shifts).astype(np.float32), kept


def _partners(
    tracks: Tracks, kept: Bool[np.ndarray, " n"], max_partners: int
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"]]:
    """Pairs of observations of one track without its reference: the nearest photos of each by id."""
    assert tracks.is_reference is not None
    rows = np.nonzero(kept & ~tracks.is_reference)[0]
    sources, targets = [], []
    track = tracks.track_id[rows]
    for apart in range(1, max_partners):
        same = np.nonzero(track[apart:] == track[:-apart])[0]
        if len(same) == 0:
            break
        sources.append(rows[same])
        targets.append(rows[same + apart])
    if not sources:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return np.concatenate(sources), np.concatenate(targets)
