"""Standing of views to their sources when their depth was computed: tells which depth an earlier run can hand on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from recon.core.cameras import Intrinsics, PinholeView
from recon.core.undistort import distort_points
from recon.dense.planes import projection_of
from recon.io.files import parse_json
from recon.run.dense_scene import DenseScene

VIEWS = "views.json"
"""File of the finished folder: how each view stood to its sources when its depth was computed."""

_STILL_PX = 0.25
"""Cameras whose pixels moved by less against those of their sources keep their depth. A quarter of the round trip that
the filter allows (``max_round_trip``), so that what agreed goes on agreeing."""

_GRID = 9
"""Pixels a side that are asked how far they moved."""


@dataclass(frozen=True)
class Posed:
    """A photo and its camera.

    Attributes:
        photo: key of the photo's content.
        model, params, size: of the camera at working size.
    """

    photo: str
    model: str
    params: tuple[float, ...]
    size: tuple[int, int]
    cam_from_world: tuple[tuple[float, ...], ...]

    @cached_property
    def intrinsics(self) -> Intrinsics:
        """The intrinsics, distortion included."""
        return Intrinsics(self.model, tuple(self.params), *self.size)

    @cached_property
    def view(self) -> PinholeView:
        """The undistorted view."""
        pose = np.array(self.cam_from_world)
        return PinholeView(0, "", self.intrinsics.K, pose, *self.size)


@dataclass(frozen=True)
class Standing:
    """Cameras of a view and its sources when its depth was computed.

    Attributes:
        settings: hash of the settings and the version of the stage.
        triangulated, covered: shares of the pixels that flow gave a depth, and that have one in the end.
        agreement: share of the sure depth that other views confirm; see ``recon.dense.filtering.Agreement``.
        scale: depth on disk over the depth that was computed: the unit of the world may have changed since.
    """

    settings: str
    me: Posed
    sources: tuple[Posed, ...]
    triangulated: float = 0.0
    covered: float = 0.0
    agreement: float | None = None
    scale: float = 1.0

    def scale_to(self, now: Mapping[str, Posed], depth: Float32[np.ndarray, "h w"]) -> float | None:
        """The scale of the depth in the world of today's cameras; None where they stand differently now.

        Args:
            now: today's cameras by the key of the photo.
            depth: what is on disk.
        """
        before = (self.me, *self.sources)
        if not self.sources or any(one.photo not in now for one in before):
            return None
        today = [now[one.photo] for one in before]
        if any((a.model, a.size) != (b.model, b.size) for a, b in zip(before, today, strict=True)):
            return None
        old, new = (_baselines(cameras) for cameras in (before, today))
        if not old > 0 or not new > 0:
            return None
        scale = new / old
        moved = [_lens_moved(a, b) for a, b in zip(before, today, strict=True)]
        grid, z = _sampled(self.me.view, depth / np.float32(self.scale))
        for source, target in zip(before[1:], today[1:], strict=True):
            there = _projected(self.me.view, source.view, grid, z)
            here = _projected(today[0].view, target.view, grid, scale * z)
            moved.append(float(np.abs(there - here).max()))
        return scale if max(moved) < _STILL_PX else None


def _baselines(cameras: Sequence[Posed]) -> float:
    return float(sum(np.linalg.norm(one.view.center - cameras[0].view.center) for one in cameras[1:]))


def _lens_moved(before: Posed, now: Posed) -> float:
    """Distance by which pixels of the undistorted photo moved in the photo as it was taken."""
    places = [distort_points(_grid(before.view), one.intrinsics, one.intrinsics.K) for one in (before, now)]
    return float(np.abs(places[0] - places[1]).max())


def _grid(view: PinholeView) -> Float[np.ndarray, "n 2"]:
    x, y = np.linspace(0, view.width - 1, _GRID), np.linspace(0, view.height - 1, _GRID)
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def _sampled(
    view: PinholeView, depth: Float32[np.ndarray, "h w"]
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, " n"]]:
    """Pixels of a view and their depth; where it is unknown, the middle one of the view."""
    grid = _grid(view)
    height, width = depth.shape
    column = np.rint((grid[:, 0] + 0.5) * width / view.width - 0.5).astype(int).clip(0, width - 1)
    row = np.rint((grid[:, 1] + 0.5) * height / view.height - 0.5).astype(int).clip(0, height - 1)
    z = depth[row, column].astype(np.float64)
    known = depth[depth > 0]
    return grid, np.where(z > 0, z, float(np.median(known)) if known.size else 1.0)


def _projected(
    view: PinholeView, other: PinholeView, xy: Float[np.ndarray, "n 2"], z: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n 2"]:
    M, v = projection_of(other, view)
    homogeneous = np.column_stack([xy, np.ones(len(xy))]) @ M.T + v / z[:, None]
    return np.asarray(homogeneous[:, :2] / homogeneous[:, 2:])


def posed_photos(scene: DenseScene) -> list[Posed]:
    """The photos of a scene with their cameras, in the order of its views."""
    found = []
    for view in scene.full_views:
        one = scene.intrinsics[view.photo_id]
        pose = tuple(tuple(row) for row in view.cam_from_world.tolist())
        key = scene.run.photo_key(scene.run.photo_set.photos[view.photo_id])
        found.append(Posed(key, one.model, tuple(one.params), (one.width, one.height), pose))
    return found


def read_standings(path: Path) -> dict[str, tuple[str, Standing]]:
    """Read what an earlier run noted: by the key of the photo, the file of its depth and how it stood."""
    try:
        stored = parse_json(path.read_text(encoding="utf-8"))
        return {one["me"]["photo"]: (name, _standing(one)) for name, one in stored.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _standing(stored: Mapping[str, Any]) -> Standing:
    def posed(one: Mapping[str, Any]) -> Posed:
        lists = {"params": tuple(one["params"]), "size": tuple(one["size"])}
        return Posed(**{**one, **lists, "cam_from_world": tuple(map(tuple, one["cam_from_world"]))})

    return Standing(
        stored["settings"],
        posed(stored["me"]),
        tuple(posed(one) for one in stored["sources"]),
        float(stored["triangulated"]),
        float(stored["covered"]),
        None if stored["agreement"] is None else float(stored["agreement"]),
        float(stored["scale"]),
    )


def standings_to_json(standings: Mapping[str, Standing]) -> dict[str, Any]:
    """The inverse of ``read_standings``, by file."""
    return {name: asdict(one) for name, one in standings.items()}
