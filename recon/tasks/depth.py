"""Depth of single views, as tasks on the workspace: every step of a view is a file, and reads those of its neighbours.

What an earlier run found is taken over for a view whose camera, and those of its source views, stand to each other as
they did then; see ``Standing``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64

from recon.core.cameras import Intrinsics, PinholeView
from recon.core.frames import up_of_photos
from recon.core.memory import Latest, Lazy
from recon.core.undistort import undistorted_pixels, undistortion_maps
from recon.dense.filtering import (
    FilterOptions,
    background_fringe,
    filter_view,
    smooth_regions,
    trusted_depth,
)
from recon.dense.refinement import refine_depth
from recon.dense.triangulation import FlowToView, triangulate_flow, undistort_flow
from recon.dense.types import DepthMap
from recon.engine.stage import StageContext
from recon.io.files import parse_json
from recon.run.dense_scene import DenseScene
from recon.run.folder import DEPTH, RunFolder, read_depth, write_depth
from recon.run.standing import VIEWS, Posed, Standing, read_standings
from recon.tasks.prediction import Prediction, predicted_photo

PLAN = "plan.json"
"""File of the folder under construction: the sources of every view, and the views that are taken over."""

PREDICTION = "prediction"

_open = Latest()


@dataclass(frozen=True)
class DepthOptions:
    """Settings of the stage that the steps of a view need; see ``DepthSettings``."""

    max_size: int
    max_reprojection: float
    iterations: int
    patch: int
    levels: int
    geometric_iterations: int
    smooth_deviation: float
    filter: FilterOptions


class DepthStep(NamedTuple):
    """A step for one view.

    Attributes:
        step: "flow", "photometric", "geometric0" and so on, "final", or "prediction", which makes no file.
        view: its index.
        name: of its photo.
    """

    step: str
    view: int
    name: str


class ViewShares(NamedTuple):
    """What a step tells of a view.

    Attributes:
        covered: share of the pixels that have a depth.
        agreement: of the last step: ``Agreement.share``; None where nothing was compared, and of other steps.
        prediction: of the step of this name; None where nothing could be predicted.
    """

    covered: float
    agreement: float | None = None
    prediction: Prediction | None = None


@dataclass(frozen=True)
class DepthTask:
    """Makes the file of a step of a view, unless it is there.

    Attributes:
        root: the workspace.
        folder: where the files are made.
        memory: bytes that photos and maps may take in the process.
    """

    root: Path
    folder: Path
    options: DepthOptions
    memory: int
    token: str

    def __call__(self, one: DepthStep) -> ViewShares:
        """Make the step's file of a view."""
        depths = _open.get(self, lambda: _Depths(self))
        return depths.predicted(one.view) if one.step == PREDICTION else depths.make(one.step, one.view)

    def lost(self, one: DepthStep) -> ViewShares:
        """Write an empty map for a view that ended its worker each time."""
        if one.step == PREDICTION:
            return ViewShares(0.0)
        return _open.get(self, lambda: _Depths(self)).write_nothing(one.step, one.view)

    def close(self) -> None:
        """Free what tasks of this process hold."""
        _open.clear()


def steps_of(options: DepthOptions) -> list[str]:
    """The steps of every view, in order."""
    if not options.iterations:
        return ["flow", "final"]
    rounds = [f"geometric{number}" for number in range(options.geometric_iterations)]
    return ["flow", "photometric", *rounds, "final"]


def steps_of_views(
    steps: Sequence[str], todo: Sequence[int], neighbours: Sequence[Sequence[int]], names: Sequence[str]
) -> tuple[list[DepthStep], list[tuple[int, ...]]]:
    """Steps of views, step by step, and of each the numbers of those that must be done before.

    A geometric step asks the depth that the view's sources had before: so a view goes on as soon as these have come as
    far, however far others are.

    Args:
        steps: all but "final", which asks any view.
        todo: indices of the views, ascending.
        neighbours, names: sources and photo of every view.
    """
    row_of = {index: row for row, index in enumerate(todo)}
    made, needs = [], []
    for number, step in enumerate(steps):
        before = (number - 1) * len(todo)
        for index in todo:
            made.append(DepthStep(step, index, names[index]))
            others = neighbours[index] if step.startswith("geometric") else ()
            all_of = [index, *(k for k in others if k in row_of)]
            needs.append(tuple(before + row_of[k] for k in all_of) if number else ())
    return made, needs


def last_steps(
    step: str,
    todo: Sequence[int],
    predicted: Sequence[int],
    neighbours: Sequence[Sequence[int]],
    names: Sequence[str],
) -> tuple[list[DepthStep], list[tuple[int, ...]]]:
    """The last step of views, then predictions, and of each step the numbers of those that must be done before.

    Args:
        todo: indices of the views, ascending. predicted: of those that are predicted.
        neighbours, names: sources and photo of every view.
    """
    row_of = {index: row for row, index in enumerate(todo)}
    steps = [DepthStep(step, index, names[index]) for index in todo]
    steps += [DepthStep(PREDICTION, index, names[index]) for index in predicted]
    needs = [tuple(row_of[k] for k in neighbours[index] if k in row_of) for index in predicted]
    return steps, [*((),) * len(todo), *needs]


def warm_up() -> None:
    """Load the kernels of all steps, on two views of noise."""
    grey = np.random.default_rng(0).integers(0, 255, (48, 64), np.uint8)
    K = np.array([[64.0, 0, 31.5], [0, 64, 23.5], [0, 0, 1]])
    poses = [np.column_stack([np.eye(3), [x, 0, 0]]) for x in (0.0, -0.1)]
    views = [PinholeView(i, "", K, pose, 64, 48) for i, pose in enumerate(poses)]
    ones = np.ones(grey.shape, np.float32)
    flow = np.full((*grey.shape, 2), -6.4, np.float32)
    triangulate_flow(views[0], [FlowToView(views[1], flow, ones, ones > 0)])
    found = DepthMap(ones, np.zeros((*grey.shape, 3), np.float32), ones)
    for others in (None, [found]):
        refine_depth(
            views[0], grey, [(views[1], grey)], found, neighbour_depths=others, iterations=1, up=np.eye(3)[1]
        )
    filter_view(views, found, [found] * 2, 0, [1], FilterOptions(), smooth_regions(grey, max_deviation=1.0))


class _Depths:
    """The steps on an opened run."""

    def __init__(self, task: DepthTask) -> None:
        self.options, self.folder = task.options, task.folder
        self.scene = DenseScene(RunFolder(task.root), task.options.max_size, task.memory)
        plan = parse_json((task.folder / PLAN).read_text(encoding="utf-8"))
        self.neighbours = [tuple(sources) for sources in plan["neighbours"]]
        self.kept = frozenset(plan["kept"])
        self.steps = steps_of(task.options)

    def file(self, step: str, index: int) -> Path:
        """Path of a step of a view."""
        number = self.scene.views[index].photo_id
        return self.folder / (f"{number}.npz" if step == "final" else f"{step}_{number}.npz")

    def depth(self, step: str, index: int) -> DepthMap:
        """Depth that a step found for a view; of a view that is taken over, what it had in the end."""
        path = self.file("final" if index in self.kept else step, index)
        return self.scene.cache.get(path.name, lambda: read_depth(path), _bytes_of)

    def make(self, step: str, index: int) -> ViewShares:
        path = self.file(step, index)
        if not path.exists():
            before = self.steps[self.steps.index(step) - 1]
            if step == "flow":
                found = triangulate(self.scene, index, self.options.max_reprojection)
            elif step == "final":
                found = self._filtered(before, index)
            else:
                found = self._refined(before, index, step)
            with self.scene.run.files.write_into(self.folder, path.name) as temporary:
                write_depth(temporary, found)
        covered = float((self.depth(step, index).depth > 0).mean())
        note = self._note(index)
        told = step == "final" and note.exists()
        return ViewShares(covered, parse_json(note.read_text(encoding="utf-8")) if told else None)

    def predicted(self, index: int) -> ViewShares:
        """The photo of a view compared with what the depth of its sources says of it."""
        sources = [k for k in self.neighbours[index] if k != index]
        found = predicted_photo(self.scene, index, sources, lambda k: self.depth(self.steps[-1], k))
        return ViewShares(0.0, prediction=found)

    def _note(self, index: int) -> Path:
        """File of the agreement of a view."""
        return self.folder / f"agreement_{self.scene.views[index].photo_id}.json"

    def write_nothing(self, step: str, index: int) -> ViewShares:
        view = self.scene.views[index]
        none = np.zeros((view.height, view.width), np.float32)
        path = self.file(step, index)
        with self.scene.run.files.write_into(self.folder, path.name) as temporary:
            write_depth(temporary, DepthMap(none, np.zeros((*none.shape, 3), np.float32), none))
        return ViewShares(0.0)

    def _up(self, index: int) -> Float64[np.ndarray, "3"] | None:
        """The direction that a view and its sources have as up; None where they do not tell."""
        used = [self.scene.views[k] for k in (index, *self.neighbours[index])]
        try:
            return up_of_photos(np.array([view.cam_from_world[:, :3] for view in used]))
        except ValueError:
            return None

    def _refined(self, before: str, index: int, step: str) -> DepthMap:
        scene, options, sources = self.scene, self.options, self.neighbours[index]
        final = step.startswith("geometric")
        initial = self.depth(before, index)
        if not sources:
            return initial
        return refine_depth(
            scene.views[index],
            scene.greys[index],
            [(scene.views[k], scene.greys[k]) for k in sources],
            initial,
            mask=scene.masks[index],
            neighbour_depths=[self.depth(before, k) for k in sources] if final else None,
            iterations=1 if final else options.iterations,
            levels=1 if final else options.levels,
            patch=options.patch,
            up=self._up(index),
            described=step == self.steps[-2],
        )

    def _filtered(self, before: str, index: int) -> DepthMap:
        scene, options = self.scene, self.options
        least = options.filter.min_confidence
        trusted = Lazy(len(scene.views), lambda i: trusted_depth(self.depth(before, i), least))
        smooth = smooth_regions(scene.greys[index], max_deviation=options.smooth_deviation)
        asked = [j for j in self.neighbours[index] if j != index]
        mine = self.depth(before, index)
        found, agreement = filter_view(scene.views, mine, trusted, index, asked, options.filter, smooth)
        if not math.isnan(agreement.share):
            with scene.run.files.write_into(self.folder, self._note(index).name) as temporary:
                temporary.write_text(json.dumps(agreement.share), encoding="utf-8")
        return found.only(~background_fringe(scene.images[index], found.depth))


def _bytes_of(depth: DepthMap) -> int:
    return depth.depth.nbytes + depth.normal.nbytes + depth.confidence.nbytes


def triangulate(scene: DenseScene, index: int, max_reprojection: float) -> DepthMap:
    """Depth of one view at matching size, from all its flow fields."""
    me = scene.full_views[index]
    others = {view.photo_id: view for view in scene.full_views}
    run = scene.run
    flows, reference = [], None
    for pair in scene.fields_of.get(me.photo_id, ()):
        other = others.get(pair[0] if pair[1] == me.photo_id else pair[1])
        if other is None:
            continue
        field, consistent, (target_height, target_width) = run.directed_match(me.photo_id, other.photo_id)
        height, width = field.confidence.shape
        reference = me.resized(width, height)
        target = other.resized(target_width, target_height)
        flow, confidence = field.flow, field.confidence
        mine, theirs = scene.intrinsics[me.photo_id], scene.intrinsics[other.photo_id]
        if not (mine.is_pinhole and theirs.is_pinhole):
            flow, confidence, consistent = undistort_flow(
                flow,
                confidence,
                consistent,
                _distorted(mine.resized(width, height), reference),
                undistorted_pixels(
                    theirs.resized(target.width, target.height), target.K, (target.width, target.height)
                ),
            )
        flows.append(FlowToView(target, flow, confidence, consistent))
    if reference is None:
        height, width = scene.views[index].height, scene.views[index].width
        zeros = np.zeros((height, width), np.float32)
        return DepthMap(zeros, np.zeros((height, width, 3), np.float32), zeros)
    return triangulate_flow(reference, flows, max_reprojection_px=max_reprojection)


def _distorted(intrinsics: Intrinsics, view: PinholeView) -> Float32[np.ndarray, "h w 2"]:
    """Position of each pixel of the undistorted view in the photo as taken."""
    return np.stack(undistortion_maps(intrinsics, view.K, (view.width, view.height)), axis=-1)


def take_over(
    work: StageContext,
    folder: Path,
    scene: DenseScene,
    today: Sequence[Posed],
    neighbours: Sequence[Sequence[int]],
    identity: str,
) -> dict[int, Standing]:
    """Put the depth of an earlier run in place for views that stand to their sources as they did.

    Args:
        folder: where the depth goes.
        today: the views' photos and cameras. neighbours: sources of each view.
        identity: hash of the settings and the version of the stage.

    A view that has a photo among its sources now that was not in the earlier run is computed again.

    Returns:
        How each such view stood.
    """
    old = work.path(*DEPTH.split("/"))
    before = read_standings(old / VIEWS)
    now = {one.photo: one for one in today}
    found: dict[int, Standing] = {}
    for index, me in enumerate(today):
        name, standing = before.get(me.photo, ("", None))
        if standing is None or standing.settings != identity or not (old / name).is_file():
            continue
        if any(today[k].photo not in before for k in neighbours[index]):
            continue
        depth = read_depth(old / name)
        scale = standing.scale_to(now, depth.depth)
        if scale is None:
            continue
        factor = np.float32(scale / standing.scale)
        with work.write_into(folder, f"{scene.views[index].photo_id}.npz") as path:
            write_depth(path, replace(depth, depth=depth.depth * factor))
        found[index] = replace(standing, scale=scale)
    return found
