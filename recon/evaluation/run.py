"""All metrics of a run that is on disk, as one flat table and as values per photo and per pair."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64

from recon.core.raycasting import MeshData
from recon.datasets.ground_truth import GroundTruth, TruthCamera
from recon.errors import ReconError
from recon.evaluation.bootstrap import (
    Statistic,
    mean,
    median,
)
from recon.evaluation.consistency import PhotoView, photo_consistency
from recon.evaluation.cost import evaluate_cost
from recon.evaluation.depth import evaluate_depth, resize_truth_depth, truth_at_pixels
from recon.evaluation.flow import evaluate_flow
from recon.evaluation.layout import Pair, RunCamera, RunFiles, RunPhoto
from recon.evaluation.matches import (
    PIXELS,
    epipolar_distances,
    evaluate_matches,
    fundamental_matrix,
)
from recon.evaluation.poses import (
    Similarity,
    align_cameras,
    area_under_curve,
    evaluate_poses,
    matched_names,
    relative_pose,
    rotation_angle,
    two_view_errors,
)
from recon.evaluation.repeats import judge_left_out
from recon.evaluation.report import Curve, RunReport, Samples, evaluation_thresholds
from recon.evaluation.sources import check_same_world
from recon.evaluation.surface import SurfaceProtocol, SurfaceReport, evaluate_surface, truth_depths
from recon.evaluation.tracks import evaluate_tracks
from recon.evaluation.truth import (
    load_surface,
    renamed_truth,
    surface_extent,
    surface_points,
    truth_intrinsics,
    undistorted_photo,
)
from recon.matching.types import SparseMatch
from recon.photos.types import PinholeView

_T = TypeVar("_T")

AUC_LIMITS = (1.0, 3.0, 5.0, 10.0, 20.0)
"""Degrees: 5, 10 and 20 of SuperGlue (Sarlin et al. 2020), 1 and 3 of the Image Matching Challenges."""

DTU_LONGEST = 0.02
"""Metres: DTU's program leaves longer distances out of its means (Aanæs et al. 2016)."""
_DEPTH_RELATIVE = (0.001, 0.005, 0.01, 0.05)
_ANOTHER_SHAPE = 0.02
# Photos whose sides differ in proportion by more than this are not the same photos.
_ASTRAY_DEGREES = 30.0
# A median rotation error above this says that nothing fits.
_ASTRAY_SHARE = 0.05
# Of the extent: a surface that is typically farther off was hardly made in the world of the truth.
_EPIPOLAR_CURVE = np.linspace(0.0, 10.0, 101)
_ANGLE_CURVE = np.linspace(0.0, 20.0, 201)


PARTS = (
    "poses", "two_view", "matches", "flow", "tracks", "depth", "surfaces", "left_out", "consistency", "cost",
)  # fmt: skip
"""What ``judge_run`` looks at, in this order."""


def judge_run(
    run: Path | RunFiles,
    truth: GroundTruth | None,
    *,
    thresholds: Sequence[float] | None = None,
    seed: int = 0,
    parts: Sequence[str] = PARTS,
    strict: bool = False,
) -> RunReport:
    """Compute all metrics that a run on disk and what is known of its scene allow.

    Args:
        run: a workspace of recon, finished or not, or a folder of another tool with a COLMAP model, a cloud or a mesh
            under the usual names (``recon.evaluation.layout``).
        truth: what is known of the scene; None judges what needs no truth.
        thresholds: distances for surfaces and points, in metres where the truth's unit is known in metres, else
            in the truth's units; None takes those of benchmarks that suit the extent of the scene.
        seed: of all sampling.
        strict: raise where a part meets something damaged or empty; else that part is left out, and noted.
        parts: what to look at, of ``PARTS``; what needs the cameras aligned does that whether "poses" is named or not.

    Returns:
        The report. What is missing on disk is noted, not raised.

    Raises:
        ReconError: the folder does not exist, its list of photos or its model is damaged, or the truth is that of
            another scene (no photo name in common, or photos of another shape).
    """
    judge = _Judge(run if isinstance(run, RunFiles) else RunFiles(run), truth, thresholds, seed, strict)
    judge.align()
    for part in PARTS:
        if part not in parts:
            continue
        try:
            getattr(judge, part)()
        except ReconError as error:
            if strict:
                raise
            judge.notes.append(f"{part}: {error}")
    return judge.report()


class _Judge:
    """Collects what the parts of an evaluation find."""

    def __init__(
        self,
        run: RunFiles,
        truth: GroundTruth | None,
        thresholds: Sequence[float] | None,
        seed: int,
        strict: bool,
    ) -> None:
        self.strict = strict
        self.run, self.truth, self.given_thresholds, self.seed = run, truth, thresholds, seed
        self.metrics: dict[str, float] = {}
        self.per_photo: dict[str, dict[str, float]] = {}
        self.per_pair: dict[str, dict[Pair, float]] = {}
        self.curves: dict[str, Curve] = {}
        self.samples: dict[str, Samples] = {}
        self.notes: list[str] = []
        self.truth_from_run: Similarity | None = None
        self.estimated: dict[str, Float64[np.ndarray, "3 4"]] = {}
        self.known: dict[str, TruthCamera] = {}
        if truth is None:
            return
        theirs = set(truth.cameras) | {name for pair in truth.pairs for name in (pair.a, pair.b)}
        ours = run.given or set(run.poses) or set(run.database_sizes)
        if not ours or not theirs:
            self.known = dict(truth.cameras)
            return
        names = matched_names(ours, theirs)
        if not names:
            raise ReconError(
                f"{run.root} and the truth {truth.name} share no photo name (one has {min(ours)}, the other "
                f"{min(theirs)}); name the truth of this scene"
            )
        self.truth = truth = renamed_truth(truth, names)
        # Photos that the run was not given are left out on purpose, and no misses.
        self.known = {n: c for n, c in truth.cameras.items() if not run.given or n in run.given}
        self.estimated = {n: pose for n, pose in run.poses.items() if n in self.known}
        for name, camera in self.known.items():
            size = self._photo_size(name)
            if (
                size is not None
                and abs(size[0] / size[1] * camera.height / camera.width - 1) > _ANOTHER_SHAPE
            ):
                raise ReconError(
                    f"{run.root}: {name} has {size[0]}x{size[1]} pixels, and {camera.width}x{camera.height} in "
                    f"the truth {truth.name}, which is another shape; name the truth of this scene"
                )

    def report(self) -> RunReport:
        return RunReport(
            self.metrics, self.per_photo, self.per_pair, self.curves, self.samples, tuple(self.notes)
        )

    def _statistic(self, name: str, values: Mapping[Any, float], statistic: Statistic) -> None:
        array = np.array([v for v in values.values() if not np.isnan(v)], np.float64)
        self.metrics[name] = statistic(array) if len(array) else float("nan")
        self.samples[name] = Samples(values, statistic)

    def _of_photos(self, name: str, values: Mapping[str, float], statistic: Statistic = mean) -> None:
        self.per_photo[name] = dict(values)
        self._statistic(name, dict(values), statistic)

    def _of_pairs(self, name: str, values: Mapping[Pair, float], statistic: Statistic = mean) -> None:
        self.per_pair[name] = dict(values)
        self._statistic(name, dict(values), statistic)

    # Cameras

    def align(self) -> None:
        """Find the similarity from the run's world to the truth's."""
        if len(self.estimated) < 2:
            return
        known = {name: camera.cam_from_world for name, camera in self.known.items()}
        try:
            self.truth_from_run = align_cameras(self.estimated, known, robust=True)
        except ValueError as error:
            self.notes.append(f"alignment: {error}")
            return
        turns = [
            rotation_angle(self.truth_from_run.camera(pose)[:, :3] @ known[name][:, :3].T)
            for name, pose in self.estimated.items()
        ]
        typical = float(np.degrees(np.median(turns)))
        if len(turns) > 3 and typical > _ASTRAY_DEGREES:
            self.notes.append(
                f"alignment: the cameras look elsewhere than the true ones (by {typical:.0f} degrees): the "
                "reconstruction failed, or the truth is that of another scene"
            )

    def poses(self) -> None:
        """Cameras against the known ones."""
        if not self.known:
            if self.run.given:
                self.metrics["registered.share"] = len(set(self.run.poses) & self.run.given) / len(
                    self.run.given
                )
            return
        known = {name: camera.cam_from_world for name, camera in self.known.items()}
        estimated = self.estimated
        self.metrics["registered.share"] = len(estimated) / len(known)
        missing = sorted(set(known) - set(estimated))
        if missing:
            self.notes.append(f"not registered: {', '.join(missing)}")
        if self.truth_from_run is None:
            self.notes.append(
                f"poses: {len(estimated)} of {len(known)} cameras are there, which allow no alignment"
            )
            for limit in AUC_LIMITS:
                self.metrics[f"poses.auc_{limit:g}"] = 0.0
            return
        plain = evaluate_poses(estimated, known, AUC_LIMITS)
        robust = evaluate_poses(estimated, known, AUC_LIMITS, robust=True)
        unit = self._unit()
        errors = dict(zip(plain.names, (plain.center_errors * unit).tolist(), strict=True))
        self._of_photos("poses.mean_error", errors)
        self._statistic("poses.median_error", dict(errors), median)
        self.metrics["poses.max_error"] = float(plain.center_max * unit)
        steady = dict(zip(robust.names, (robust.center_errors * unit).tolist(), strict=True))
        self._of_photos("poses.robust_mean_error", steady)
        self._statistic("poses.robust_median_error", dict(steady), median)
        turns = dict(zip(robust.names, robust.rotation_errors.tolist(), strict=True))
        self._of_photos("poses.rotation_mean", turns)
        self._auc("poses", plain.pair_errors, "pairs of cameras, by their absolute poses")

    def two_view(self) -> None:
        """The relative pose of each pair from its own matches."""
        truth = self._relative_truth(self.run.pairs)
        found = self.run.two_view_poses()
        if not truth or found is None:
            return
        self._auc("two_view", two_view_errors(found, truth), "pairs of photos, by their own matches")

    def _auc(self, name: str, errors: Mapping[Pair, float], label: str) -> None:
        self.per_pair[f"{name}.error"] = dict(errors)
        for limit in AUC_LIMITS:
            self._statistic(f"{name}.auc_{limit:g}", dict(errors), partial(area_under_curve, limit=limit))
        values = np.sort(np.array(list(errors.values())))
        share = np.searchsorted(values, _ANGLE_CURVE, side="right") / max(len(values), 1)
        self.curves[f"{name}.error"] = Curve(label, "degrees", _ANGLE_CURVE, share)

    def _relative_truth(self, pairs: Iterable[Pair]) -> dict[Pair, Float64[np.ndarray, "3 4"]]:
        """``b_from_a`` of the pairs whose truth is known, by cameras or as the benchmark lists it."""
        if self.truth is None:
            return {}
        listed = {(p.a, p.b): p.b_from_a for p in self.truth.pairs}
        out = {}
        for a, b in pairs:
            if a in self.truth.cameras and b in self.truth.cameras:
                out[a, b] = relative_pose(
                    self.truth.cameras[a].cam_from_world, self.truth.cameras[b].cam_from_world
                )
            elif (a, b) in listed:
                out[a, b] = listed[a, b]
            elif (b, a) in listed:
                back = listed[b, a]
                out[a, b] = np.column_stack([back[:, :3].T, -back[:, :3].T @ back[:, 3]])
        return out

    # Matches and flow

    def matches(self) -> None:
        """Matches against the geometry of known cameras, and known depth."""
        if self.truth is None or not (self.truth.cameras or self.truth.pairs):
            return
        reports, curve = {}, []
        for pair, match, count in self.run.matches(seed=self.seed):
            views = self._pair_views(pair)
            if views is None:
                continue
            a, b = views
            moved = self._without_distortion(pair, match, a, b)
            depth_a, depth_b = (
                (self._truth_depth(name, view) if moved is match else None)
                for name, view in zip(pair, views, strict=True)
            )
            reports[pair] = evaluate_matches(moved, a, b, count=count, depth_a=depth_a, depth_b=depth_b)
            errors = np.sort(epipolar_distances(moved.xy_a, moved.xy_b, fundamental_matrix(a, b)))
            curve.append(np.searchsorted(errors, _EPIPOLAR_CURVE, side="right") / max(len(errors), 1))
        if not reports:
            return
        for limit in PIXELS:
            values = {pair: r.precision[limit] for pair, r in reports.items()}
            self._of_pairs(f"matches.precision_{limit:g}px", values)
        self._of_pairs(
            "matches.epipolar_median_px", {p: r.median_epipolar for p, r in reports.items()}, median
        )
        self._of_pairs("matches.count", {p: float(r.count) for p, r in reports.items()})
        self._of_pairs("matches.coverage", {p: r.coverage for p, r in reports.items()})
        self._of_pairs("matches.correct_coverage", {p: r.correct_coverage for p, r in reports.items()})
        if any(r.judged > 0 for r in reports.values()):
            self._of_pairs(
                "matches.endpoint_median_px", {p: r.endpoint_median for p, r in reports.items()}, median
            )
            for limit in PIXELS:
                values = {p: r.endpoint_within.get(limit, float("nan")) for p, r in reports.items()}
                self._of_pairs(f"matches.endpoint_within_{limit:g}px", values)
            self._of_pairs("matches.impossible_share", {p: r.impossible for p, r in reports.items()})
        self.curves["matches.epipolar"] = Curve(
            "matches, mean over pairs, by epipolar error", "pixels", _EPIPOLAR_CURVE, np.mean(curve, axis=0)
        )

    def _pair_views(self, pair: Pair) -> tuple[PinholeView, PinholeView] | None:
        """The known cameras of a pair at the size that its matches are in."""
        assert self.truth is not None
        views: list[PinholeView] = []
        if all(name in self.truth.cameras for name in pair):
            views = [self.truth.cameras[name].view(name, i) for i, name in enumerate(pair)]
        else:
            for listed in self.truth.pairs:
                if {listed.a, listed.b} == set(pair):
                    views = self._listed_views(pair, listed.a, listed.K_a, listed.K_b, listed.b_from_a)
                    break
        if len(views) != 2:
            return None
        out = []
        for view in views:
            size = self._photo_size(view.name)
            out.append(view if size is None else view.resized(*size))
        return out[0], out[1]

    def _listed_views(
        self,
        pair: Pair,
        first: str,
        K_a: Float[np.ndarray, "3 3"],
        K_b: Float[np.ndarray, "3 3"],
        b_from_a: Float[np.ndarray, "3 4"],
    ) -> list[PinholeView]:
        """Views of a pair whose truth is a relative pose; the size of the files is that of the original photos."""
        views: list[PinholeView] = []
        for name, K, pose in ((pair[0], K_a, np.eye(3, 4)), (pair[1], K_b, np.asarray(b_from_a))):
            size = self.run.original_size(name)
            if size is None:
                return []
            views.append(PinholeView(len(views), name, K, pose, *size))
        if first != pair[0]:
            swapped = (
                (K_b, np.eye(3, 4)),
                (K_a, np.column_stack([b_from_a[:, :3].T, -b_from_a[:, :3].T @ b_from_a[:, 3]])),
            )
            views = [
                replace(v, K=K, cam_from_world=pose) for v, (K, pose) in zip(views, swapped, strict=True)
            ]
        return views

    def _photo_size(self, name: str) -> tuple[int, int] | None:
        photo: RunPhoto | None = self.run.photos.get(name)
        if photo is not None:
            return photo.width, photo.height
        return self.run.database_sizes.get(name)

    def _without_distortion(
        self, pair: Pair, match: SparseMatch, a: PinholeView, b: PinholeView
    ) -> SparseMatch:
        """The match in the pixels of the pinhole views; itself where the known cameras have no distortion."""
        from recon.sfm.adapter import undistort_points

        assert self.truth is not None
        cameras = [self.truth.cameras.get(name) for name in pair]
        if all(camera is None or camera.distortion is None for camera in cameras):
            return match
        moved = []
        for xy, camera, view in zip((match.xy_a, match.xy_b), cameras, (a, b), strict=True):
            if camera is None or camera.distortion is None:
                moved.append(xy)
                continue
            intrinsics = truth_intrinsics(camera).resized(view.width, view.height)
            moved.append(undistort_points(xy, intrinsics, view.K).astype(np.float32))
        return SparseMatch(moved[0], moved[1], match.score)

    def _truth_depth(self, name: str, view: PinholeView) -> Float32[np.ndarray, "h w"] | None:
        """The known depth at the size of a view; kept, because every photo is in many pairs."""
        if self.truth is None or self.truth.depth is None:
            return None
        key = (name, view.width, view.height)
        if key not in self._depths:
            depth = self.truth.depth(name)
            self._depths[key] = None if depth is None else resize_truth_depth(depth, view.width, view.height)
        return self._depths[key]

    @cached_property
    def _depths(self) -> dict[tuple[str, int, int], Float32[np.ndarray, "h w"] | None]:
        return {}

    def flow(self) -> None:
        """Dense fields against known flow."""
        if self.truth is None or self.truth.flow is None:
            return
        reports, trusted = {}, {}
        for pair in self.run.pairs:
            for a, b in (pair, pair[::-1]):
                truth = self.truth.flow(a, b)
                found = self.run.flow((a, b)) if truth is not None else None
                if truth is None or found is None:
                    continue
                estimate, consistent = self._flow_at(found, truth.shape[:2], (a, b))
                reports[a, b] = evaluate_flow(estimate, truth)
                try:
                    trusted[a, b] = evaluate_flow(estimate, truth, consistent)
                except ValueError:
                    self.notes.append(f"flow: no consistent pixel of {a} to {b} has a known flow")
        if not reports:
            return
        self._of_pairs("flow.endpoint_px", {p: r.endpoint for p, r in reports.items()})
        self._of_pairs("flow.angular_deg", {p: r.angular for p, r in reports.items()})
        self._of_pairs("flow.fl_outliers", {p: r.fl for p, r in reports.items()})
        for limit in PIXELS:
            self._of_pairs(f"flow.outliers_{limit:g}px", {p: r.outliers[limit] for p, r in reports.items()})
        self._of_pairs("flow.consistent_endpoint_px", {p: r.endpoint for p, r in trusted.items()})

    def _flow_at(
        self,
        found: tuple[Float32[np.ndarray, "h w 2"], np.ndarray],
        shape: tuple[int, int],
        pair: Pair,
    ) -> tuple[Float32[np.ndarray, "h2 w2 2"], np.ndarray]:
        """A flow of the matching size at the size of the truth: positions by x' = (x + 0.5) s - 0.5."""
        flow, consistent = found
        height, width = shape
        b = self.run.flow_shape(pair[1]) or flow.shape[:2]
        if flow.shape[:2] == (height, width) == b:
            return flow, consistent
        size = (width, height)
        x, y = np.meshgrid(np.arange(flow.shape[1]), np.arange(flow.shape[0]))
        there = flow + np.stack([x, y], axis=-1)
        big = cv2.resize(there.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        factor = np.array([width / b[1], height / b[0]], np.float32)
        columns, rows = np.meshgrid(np.arange(width), np.arange(height))
        moved = (big + 0.5) * factor - 0.5 - np.stack([columns, rows], axis=-1)
        mask = cv2.resize(consistent.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        return moved.astype(np.float32), mask

    # Tracks, depth, surfaces

    def tracks(self) -> None:
        """Triangulated tracks."""
        model = self.run.sparse()
        if model is None:
            return
        truth, views = self._surface_truth, self._truth_views()
        judged = truth is not None and self.truth_from_run is not None
        try:
            report = evaluate_tracks(
                model,
                truth if judged else None,
                views,
                thresholds=[t for _, t in self._limits] if judged else (1.0,),
                voxel=self._limits[0][1] if judged else None,
                truth_from_estimate=self.truth_from_run,
                seed=self.seed,
                depths=self._seen_truth if judged else None,
                region=self.truth.region if self.truth is not None else None,
            )
        except ValueError as error:
            self.notes.append(f"tracks: {error}")
            return
        self.metrics["tracks.points"] = float(report.points)
        self.metrics["tracks.observations"] = float(report.observations)
        self.metrics["tracks.mean_length"] = report.mean_length
        self.metrics["tracks.reprojection_px"] = report.mean_reprojection
        if report.surface is not None:
            for (name, _), p, r in zip(
                self._limits, report.surface.precision, report.surface.recall, strict=True
            ):
                self.metrics[f"tracks.accuracy_share_{name}"] = p
                self.metrics[f"tracks.completeness_{name}"] = r

    def depth(self) -> None:
        """Depth maps against known depth, each photo of the run with truth."""
        if self.truth is None or self.truth.depth is None or self.truth_from_run is None:
            return
        scale, unit = self.truth_from_run.scale, self._unit()
        reports = {}
        for name in sorted(self.known):
            truth = self.truth.depth(name)
            if truth is None or not (np.isfinite(truth) & (truth > 0)).any():
                continue
            estimate = self.run.depth(name)
            if estimate is None:
                estimate = np.zeros_like(truth)
            else:
                truth = self._truth_on_grid(truth, name, estimate.shape)
            if not (truth > 0).any():
                continue
            reports[name] = evaluate_depth(estimate * scale, truth, _DEPTH_RELATIVE)
        if not reports or all(r.coverage == 0 for r in reports.values()):
            return
        self._of_photos("depth.coverage", {n: r.coverage for n, r in reports.items()})
        self._of_photos("depth.median_error", {n: r.median * unit for n, r in reports.items()}, median)
        self._of_photos("depth.mean_error", {n: r.mean * unit for n, r in reports.items()})
        self._of_photos("depth.relative_error", {n: r.relative for n, r in reports.items()})
        for limit in _DEPTH_RELATIVE:
            key = f"{100 * limit:g}pct"
            self._of_photos(
                f"depth.within_{key}_share",
                {n: r.within[limit] if r.coverage else float("nan") for n, r in reports.items()},
            )
            self._of_photos(f"depth.correct_{key}_share", {n: r.correct[limit] for n, r in reports.items()})
        limits = np.array(_DEPTH_RELATIVE)
        self.curves["depth.correct"] = Curve(
            "pixels with known depth, mean over photos, by relative error", "share", limits,
            np.array([self.metrics[f"depth.correct_{100 * limit:g}pct_share"] for limit in _DEPTH_RELATIVE]),
        )  # fmt: skip

    def _truth_on_grid(
        self, truth: Float32[np.ndarray, "h w"], name: str, shape: tuple[int, ...]
    ) -> Float32[np.ndarray, "h2 w2"]:
        """The known depth at the pixels of an estimated depth map (undistorted by the run's own camera)."""
        height, width = shape
        camera: RunCamera | None = self.run.cameras.get(name)
        if camera is None or camera.intrinsics.is_pinhole:
            return resize_truth_depth(truth, width, height)
        from recon.sfm.adapter import distort_points

        intrinsics = camera.intrinsics.resized(width, height)
        x, y = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
        photo = distort_points(np.stack([x.ravel(), y.ravel()], axis=1), intrinsics, intrinsics.K)
        inside = np.isfinite(photo).all(axis=1)
        photo = np.where(inside[:, None], photo, -1e6)
        return truth_at_pixels(truth, photo, width, height).reshape(height, width)

    def surfaces(self) -> None:
        """Dense points and mesh against the true surface."""
        if self.truth is None or self._surface_truth is None:
            return
        cloud, mesh = self._read("points", self.run.cloud), self._read("mesh", self.run.mesh)
        if self.truth_from_run is None:
            if self.run.model_folder is not None and self.known:
                self.notes.append("surface: the cameras do not allow an alignment, so nothing is judged")
                return
            for path, surface in (
                (self.run.cloud_path, None if cloud is None else cloud.xyz),
                (self.run.mesh_path, None if mesh is None else mesh.vertices),
            ):
                if surface is not None:
                    check_same_world(surface, surface_points(self._surface_truth), str(path), self.truth.name)
            self.notes.append(
                "surface: there are no cameras to align by; taken to be in the world of the truth"
            )
        if cloud is not None:
            self._surface("points", cloud.xyz)
        if mesh is not None:
            self._surface("mesh", mesh)

    def _surface(self, name: str, estimate: MeshData | Float32[np.ndarray, "n 3"]) -> None:
        assert self.truth is not None
        assert self._surface_truth is not None
        unit = self._unit()
        limits = [t for _, t in self._limits]
        try:
            report: SurfaceReport = evaluate_surface(
                estimate,
                self._surface_truth,
                self._truth_views(),
                limits,
                self.truth_from_run,
                SurfaceProtocol(
                    seed=self.seed,
                    voxel=0.5 * limits[0],
                    max_distance=DTU_LONGEST / unit if self.truth.layout == "dtu" else None,
                ),
                depths=self._seen_truth,
                region=self.truth.region,
            )
        except ValueError as error:
            self.notes.append(f"{name}: {error}")
            return
        if self.truth_from_run is None and report.accuracy[1] > _ASTRAY_SHARE * self._extent:
            self.notes.append(
                f"{name}: half of it is farther from the truth than {100 * _ASTRAY_SHARE:g}% of the scene: are both in "
                "one world?"
            )
        for (key, _), p, r, f in zip(
            self._limits, report.precision, report.recall, report.f_score, strict=True
        ):
            self.metrics[f"{name}.precision_{key}"] = p
            self.metrics[f"{name}.recall_{key}"] = r
            self.metrics[f"{name}.f_{key}"] = f
        self.metrics[f"{name}.accuracy_mean_error"] = report.accuracy[0] * unit
        self.metrics[f"{name}.accuracy_median_error"] = report.accuracy[1] * unit
        self.metrics[f"{name}.completeness_mean_error"] = report.completeness[0] * unit
        self.metrics[f"{name}.completeness_median_error"] = report.completeness[1] * unit
        self.metrics[f"{name}.chamfer"] = report.chamfer * unit
        self.metrics[f"{name}.judged_share"] = report.judged / max(report.estimated, 1)
        self.metrics[f"{name}.behind_ratio"] = report.behind
        x = report.curve[:, 0] * unit
        length = "metres" if self.truth.unit_in_metres is not None else "units of the truth"
        self.curves[f"{name}.precision"] = Curve("judged part of the estimate", length, x, report.curve[:, 1])
        self.curves[f"{name}.recall"] = Curve("seen part of the truth", length, x, report.curve[:, 2])

    # Without truth

    def left_out(self) -> None:
        """Photos of the truth that the run was not given."""
        if self.truth is None or not self.run.photos or self.truth_from_run is None:
            return
        names = sorted(set(self.truth.cameras) - self.run.given)
        images = {name: self.truth.images / name for name in names}
        names = [name for name in names if images[name].is_file()]
        if not names:
            return
        photos = {
            name: undistorted_photo(images[name], self.truth.cameras[name], self._long_side) for name in names
        }
        report = judge_left_out(
            self.run.root, self.truth.views(), photos, run_from_cameras=self.truth_from_run.inverse()
        )
        for kind, reports in (("mesh", report.mesh), ("cloud", report.cloud)):
            if reports:
                self._of_photos(f"left_out.{kind}_psnr", {n: r.psnr for n, r in reports.items()})
                self._of_photos(f"left_out.{kind}_ssim", {n: r.ssim for n, r in reports.items()})
                self._of_photos(f"left_out.{kind}_coverage", {n: r.coverage for n, r in reports.items()})

    @property
    def _long_side(self) -> int:
        return max(max(p.width, p.height) for p in self.run.photos.values())

    def consistency(self) -> None:
        """Whether the photos agree on the points."""
        cloud = self._read("points", self.run.cloud)
        model = self.run.sparse() if cloud is None or not len(cloud) else None
        if cloud is not None and len(cloud):
            xyz, normals, name = cloud.xyz, cloud.normals, "photo_consistency"
        elif model is not None:
            xyz, normals, name = model.xyz.astype(np.float32), None, "tracks.photo_consistency"
        else:
            return
        views = self._photo_views()
        if len(views) < 2:
            self.notes.append("photo_consistency: the photos are not at hand")
            return
        report = photo_consistency(xyz, normals, views, seed=self.seed)
        if not report.compared:
            self.notes.append("photo_consistency: no point could be compared between two photos")
            return
        self._of_photos(name, report.by_photo)
        self.metrics[name] = report.mean
        self.metrics[f"{name}.agreeing_share"] = report.agreeing
        self.metrics[f"{name}.compared_share"] = report.compared / max(report.sampled, 1)
        # The mean of all points and the mean of the photos' means differ: the interval is that of the latter.
        self._statistic(f"{name}.photo_mean", dict(report.by_photo), mean)
        self.samples.pop(name)

    def _photo_views(self) -> list[PhotoView]:
        """The registered photos with the run's own cameras."""
        views = []
        for name, camera in self.run.cameras.items():
            rgb = self.run.rgb(name)
            width, height = camera.intrinsics.width, camera.intrinsics.height
            if rgb is None and self.truth is not None and (self.truth.images / name).is_file():
                from recon.photos.reading import load_photo

                rgb = load_photo(self.truth.images / name).rgb
            if rgb is None:
                continue
            if rgb.shape[:2] != (height, width):
                rgb = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
            pose = camera.cam_from_world
            grey = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY)
            center = -pose[:, :3].T @ pose[:, 3]
            views.append(PhotoView(name, grey, camera.project, center, float(camera.intrinsics.K[0, 0])))
        return views

    def cost(self) -> None:
        """Time, memory, disk."""
        if not (self.run.root / "manifest.json").is_file():
            self.notes.append("cost: no manifest.json, so time and memory are unknown")
            return
        cost = evaluate_cost(self.run.root)
        self.metrics["cost.seconds"] = cost.seconds
        self.metrics["cost.cpu_seconds"] = cost.cpu_seconds
        self.metrics["cost.seconds_per_pair"] = cost.seconds_per_pair
        self.metrics["cost.peak_memory_mb"] = cost.peak_memory_mb
        self.metrics["cost.bytes_on_disk"] = float(cost.bytes_on_disk)

    # What several parts need

    def _read(self, what: str, read: Callable[[], _T]) -> _T | None:
        """What is read, or None and a note where it is damaged."""
        try:
            return read()
        except ReconError as error:
            if self.strict:
                raise
            note = f"{what}: {error}"
            if note not in self.notes:
                self.notes.append(note)
            return None

    def _unit(self) -> float:
        """Metres per unit of the truth where known, else 1: errors are in metres or in units."""
        unit = self.truth.unit_in_metres if self.truth is not None else None
        return 1.0 if unit is None else float(unit)

    @cached_property
    def _surface_truth(self) -> MeshData | Float32[np.ndarray, "m 3"] | None:
        if self.truth is None:
            return None
        return load_surface(self.truth)

    def _truth_views(self) -> list[PinholeView]:
        return [camera.view(name, i) for i, (name, camera) in enumerate(sorted(self.known.items()))]

    @cached_property
    def _seen_truth(self) -> list[tuple[PinholeView, Float32[np.ndarray, "h w"]]]:
        """What the known cameras see of the true surface."""
        assert self._surface_truth is not None
        return truth_depths(self._surface_truth, self._truth_views())

    @cached_property
    def _limits(self) -> list[tuple[str, float]]:
        assert self.truth is not None
        return evaluation_thresholds(self._extent, self.truth.unit_in_metres, self.given_thresholds)

    @cached_property
    def _extent(self) -> float:
        assert self._surface_truth is not None
        return surface_extent(self._surface_truth)
