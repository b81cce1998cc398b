"""Functions for Python users: reconstruct a folder, match two images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, UInt8

from recon.errors import ReconError, UsageError
from recon.io.manifest import KEPT
from recon.matching.alignment import placement
from recon.matching.opencv_like import DenseOpticalFlow
from recon.matching.types import DenseMatch, MatchImage, PairContext, SparseMatch
from recon.run.state import DERIVED, RESULTS

if TYPE_CHECKING:
    from recon.engine.recipe import Recipe
    from recon.engine.runner import RunOptions, RunSummary
    from recon.engine.stage import Stage
    from recon.run.inputs import RunInputs

__all__ = [
    "DenseOpticalFlow",
    "PairPictures",
    "match",
    "match_files",
    "plan",
    "reconstruct",
    "stages",
    "trust",
]


def stages() -> tuple[Stage, ...]:
    """The stages of a reconstruction, in the order in which they run."""
    from recon.stages.depth import DepthStage
    from recon.stages.features import FeaturesStage
    from recon.stages.fields import FieldsStage
    from recon.stages.fuse import FuseStage
    from recon.stages.map import MapStage
    from recon.stages.match import MatchStage
    from recon.stages.mesh import MeshStage
    from recon.stages.pairs import PairsStage
    from recon.stages.photos import PhotosStage
    from recon.stages.report import ReportStage
    from recon.stages.texture import TextureStage
    from recon.stages.tracks import TracksStage
    from recon.stages.verify import VerifyStage

    return (
        PhotosStage(),
        FeaturesStage(),
        PairsStage(),
        MatchStage(),
        VerifyStage(),
        TracksStage(),
        MapStage(),
        FieldsStage(),
        DepthStage(),
        FuseStage(),
        MeshStage(),
        TextureStage(),
        ReportStage(),
    )


def reconstruct(
    photos: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    recipe: str | Path = "siftflow",
    quality: str = "normal",
    overrides: Iterable[str] = (),
    intrinsics: str | Path | None = None,
    masks: str | Path | None = None,
    stop_after: str | None = None,
    restart_from: str | None = None,
    threads: int | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    memory: str | None = None,
    seed: int = 0,
    resume: bool = True,
    camera_sharing: str | None = None,
    camera_model: str | None = None,
    frames: int | None = None,
) -> RunSummary:
    """Cameras, dense points and a mesh from photos or films.

    Args:
        photos: folder of photos and films, searched with all that is below it; or a photo, a film, a pattern such as
            ``DCIM/*.JPG``, a text file with one name a line; or several of these.
        out: workspace; what is already done there with the same settings is not done again.
        recipe: a name in ``pipelines/`` or the path of a TOML file.
        quality: "preview", "normal" or "high".
        overrides: settings on top of the recipe, each "section.key=value".
        intrinsics: a ``cameras.json``, a COLMAP ``cameras.txt`` or "fx,fy,cx,cy"; None to estimate them.
        masks: folder of masks, white where a photo may be used.
        stop_after, restart_from: names of stages.
        threads: None for all cores.
        workers: processes of this machine that share the work; None to do it in this process.
        cluster: address of a Dask scheduler whose workers share the work, for example "tcp://host:8786".
        memory: what the run may take, for example "8G"; None for what the machine has.
        seed: of every random choice.
        camera_sharing: "auto", "single" or "per-photo"; None for what the recipe says.
        camera_model: COLMAP's name of one, for cameras that are not known, or "auto"; None for what the recipe says.
        frames: how many frames to take of each film; None for as many as its motion asks for.

    Returns:
        What the run did, stage by stage; the results are files in ``out`` (see ``out/summary.txt``).

    Raises:
        UsageError: a wrong setting, name or path. ReconError: the run failed; what was done stays.
    """
    from recon.core.memory import memory_size
    from recon.engine.recipe import load_recipe
    from recon.engine.runner import RunOptions
    from recon.photos.scanning import source_folder

    sources = [str(photos)] if isinstance(photos, (str, Path)) else [str(one) for one in photos]
    source = source_folder(sources)
    every = stages()
    inputs = _inputs(sources, frames, intrinsics, masks, camera_sharing)
    options = RunOptions(
        inputs=inputs,
        described=inputs.described(),
        source=str(source.resolve()),
        threads=threads,
        workers=workers,
        cluster=cluster,
        memory=None if memory is None else memory_size(memory),
        seed=seed,
        costs=_costs,
        needs=_needs,
        stop_after=stop_after,
        restart_from=restart_from,
        resume=resume,
        results=RESULTS,
        derived=DERIVED,
    )
    if camera_model is not None:
        overrides = (*overrides, f"photos.camera_model={camera_model}")
    return _run_and_report(every, load_recipe(recipe, every, quality, overrides), Path(out), options)


def _inputs(
    photos: Sequence[str],
    frames: int | None,
    intrinsics: str | Path | None,
    masks: str | Path | None,
    camera_sharing: str | None,
) -> RunInputs:
    from recon.run.inputs import RunInputs

    if frames is not None and frames < 2:
        raise UsageError(f"--frames {frames}: a reconstruction needs two or more")
    return RunInputs(
        tuple(photos),
        frames,
        None if intrinsics is None else str(intrinsics),
        None if masks is None else str(masks),
        camera_sharing,
    )


def _costs(root: Path, recipe: Recipe, counts: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Estimate the cost of a run's stages, once its pairs are chosen."""
    from recon.run.folder import RunFolder
    from recon.run.forecast import stage_costs, workload

    if "pairs" not in counts:
        return {}
    sections = {"match": recipe.settings["match"].model_dump()}
    work = workload(RunFolder(root), sections, int(counts["pairs"]["candidates"]))
    return {} if work is None else stage_costs(work)


def _needs(root: Path, recipe: Recipe) -> int:
    """Memory that the largest task of a run takes, once its photos are read."""
    from recon.run.folder import RunFolder
    from recon.run.forecast import task_memory

    return task_memory(RunFolder(root), int(recipe.settings["match"].model_dump()["max_size"]))


def plan(run: str | Path, threads: int | None = None, memory: str | None = None) -> str:
    """Describe the cost of the rest of a run: time by stage, disk, memory.

    Args:
        run: a workspace whose pairs are chosen (``reconstruct`` with ``stop_after="pairs"``).
        threads, memory: as ``reconstruct`` gets them.

    Raises:
        ReconError: its pairs are not chosen.
    """
    from recon.core.memory import machine_memory, memory_size
    from recon.core.parallel import usable_cores
    from recon.engine.recipe import load_recipe
    from recon.engine.runner import RECIPE
    from recon.run import forecast
    from recon.run.folder import RunFolder

    folder = RunFolder(Path(run))
    done = {} if folder.manifest is None else folder.manifest.stages
    took = {
        name: one.seconds for name, one in done.items() if one.state == "done" and not one.counts.get(KEPT)
    }
    if "pairs" not in done or done["pairs"].state != "done":
        raise ReconError(f"{run}: its pairs are not chosen yet; run 'recon reconstruct' with --plan")
    settings = load_recipe(Path(run) / RECIPE, stages()).settings["match"].model_dump()
    work = forecast.workload(folder, {"match": settings}, int(done["pairs"].counts["candidates"]))
    assert work is not None
    finished = {name: took.get(name, 0.0) for name, one in done.items() if one.state == "done"}
    allowed = memory_size(memory) if memory else machine_memory()
    return forecast.plan(work, finished, threads or usable_cores(), allowed).in_words()


def trust(run: str | Path) -> dict[str, Any] | None:
    """Verdict on the cameras of a run, as it stands under "trust" in its ``summary.json``.

    Returns:
        "verdict" ("sound", "doubtful" or "not a reconstruction"), "reasons" (each with "what" and "advice") and
        "figures" (see ``recon.sfm.trust.Figures``). None before cameras were estimated, or where they were given.
    """
    from recon.run.folder import RunFolder

    return RunFolder(Path(run)).trust()


def _run_and_report(every: tuple[Stage, ...], recipe: Recipe, out: Path, options: RunOptions) -> RunSummary:
    """Runs the stages. A run that stops before its last stage, or fails, leaves report.html of what it did."""
    from recon.engine.runner import InterruptedRunError, run_stages
    from recon.stages.report import write_partial_report

    try:
        summary = run_stages(every, recipe, out, options)
    except (InterruptedRunError, UsageError):
        raise
    except Exception as error:
        write_partial_report(out, error)
        raise
    if summary.stages[-1].name != every[-1].name:
        write_partial_report(out)
    return summary


def match(
    image_a: UInt8[np.ndarray, "..."],
    image_b: UInt8[np.ndarray, "..."],
    matcher: str = "siftflow",
    **settings: Any,
) -> DenseMatch | SparseMatch:
    """Correspondence of two images: a dense field both ways, or point matches, as the matcher gives.

    Args:
        image_a, image_b: (h, w, 3) RGB or (h, w) grey, uint8; sizes may differ.
        matcher: a name in the registry of matchers (``recon.matching.registry.available_matchers``).
        **settings: the matcher's own, e.g. ``window=5``.

    Returns:
        Of a dense matcher flow from A to B and back with confidence, and which pixels come back to where they
        started; of a sparse one points of A and B with a score. B may be turned against A by quarter turns.

    Raises:
        UsageError: an image of another shape or type, an unknown matcher or setting.
        ReconError: the matcher returned what cannot be a match.
    """
    from recon.features.interest_points import extract_interest_points, match_interest_points
    from recon.matching.checking import BadMatchError, checked_match
    from recon.matching.registry import create_matcher

    chosen = create_matcher(matcher, **settings)
    images, points = [], []
    for name, image in (("image_a", image_a), ("image_b", image_b)):
        rgb = _rgb(name, image)
        found = extract_interest_points(rgb) if chosen.capabilities.uses_interest_points else None
        points.append(found)
        images.append(MatchImage(rgb, None, found))
    seeds = None
    if chosen.capabilities.uses_seeds and points[0] is not None and points[1] is not None:
        seeds = match_interest_points(points[0], points[1])
    size_a, size_b = ((image.rgb.shape[1], image.rgb.shape[0]) for image in images)
    kind = chosen.capabilities.kind
    placed = placement(points[0], points[1], seeds, size_a, size_b, rescale=kind == "dense")
    target = placed.place(images[1])
    found_match = chosen.match(chosen.prepare(images[0]), chosen.prepare(target), PairContext(seeds))
    try:
        result = checked_match(found_match, kind, size_a, placed.target_size)
    except BadMatchError as error:
        raise ReconError(f"matcher {matcher!r}: {error}") from error
    return placed.back(result) if isinstance(result, DenseMatch) else placed.points_back(result)


def _rgb(name: str, image: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise UsageError(
            f"{name}: expected uint8 of shape (h, w, 3) or (h, w), got {image.dtype} of shape {image.shape}"
        )
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    return np.ascontiguousarray(image)


@dataclass(frozen=True)
class PairPictures:
    """Files that ``match_files`` wrote.

    Attributes:
        consistent_share_a, consistent_share_b: of a dense matcher, how much of each image is matched consistently.
        matches, agreeing: of a sparse matcher, the number of matches, and of those that agree with the pair's
            geometry.
    """

    folder: Path
    files: tuple[str, ...]
    consistent_share_a: float = 0.0
    consistent_share_b: float = 0.0
    matches: int | None = None
    agreeing: int | None = None

    def in_words(self) -> str:
        """The result in one line."""
        if self.matches is not None:
            return f"matches: {self.matches}, of which {self.agreeing} agree with the geometry of the pair"
        return f"consistent both ways: {self.consistent_share_a:.0%} of A, {self.consistent_share_b:.0%} of B"


def match_files(
    a: str | Path,
    b: str | Path,
    out: str | Path,
    *,
    matcher: str = "siftflow",
    max_size: int = 640,
    overrides: Iterable[str] = (),
) -> PairPictures:
    """Matches of two image files as arrays and pictures.

    A dense matcher gives flow both ways (.npy and .flo), a colour-wheel picture of it, the warp, scale maps and
    consistency; a sparse one ``matches.npz`` (points in pixels of image_a.png and image_b.png, scores, and which
    agree with the pair's geometry) and a picture with lines.

    Args:
        a, b: image files. out: folder for the results.
        matcher: a name in the registry of matchers.
        max_size: longest side at which the images are matched.
        overrides: settings of the matcher, each "key=value".
    """
    from recon.engine.recipe import parse_value

    settings = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text}: write key=value, for example --set window=5")
        settings[key.strip().removeprefix("match.")] = parse_value(value)
    images = _sized_image(Path(a), max_size), _sized_image(Path(b), max_size)
    result = match(*images, matcher, **settings)
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReconError(f"{folder}: cannot be made ({error.strerror}); choose another --out") from error
    written = [
        _write_picture(folder, f"image_{side}.png", rgb) for side, rgb in zip("ab", images, strict=True)
    ]
    if isinstance(result, SparseMatch):
        return _write_sparse_match(folder, written, result, images)
    return _write_dense_match(folder, written, result, images)


def _sized_image(path: Path, max_size: int) -> UInt8[np.ndarray, "h w 3"]:
    """The image of a file, at the size that it is matched at."""
    from recon.core.resize import resize_rgb, working_size
    from recon.photos.reading import PhotoError, decode_photo

    if not path.is_file():
        raise UsageError(f"{path}: there is no such file")
    try:
        rgb = decode_photo(path).pixels.rgb
    except PhotoError as error:
        raise ReconError(f"{path}: {error}") from error
    return resize_rgb(rgb, *working_size(rgb.shape[1], rgb.shape[0], max_size))


def _write_picture(folder: Path, name: str, rgb: UInt8[np.ndarray, "h w 3"]) -> str:
    from recon.io.pictures import write_bgr

    try:
        write_bgr(folder / name, rgb[:, :, ::-1])
    except OSError as error:
        raise ReconError(
            f"{folder / name}: cannot be written ({error.strerror}); choose another --out"
        ) from error
    return name


def _write_sparse_match(
    folder: Path,
    written: list[str],
    result: SparseMatch,
    images: tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h2 w2 3"]],
) -> PairPictures:
    from recon.render.match_lines import match_lines_picture

    agrees = _agreeing(result, *images)
    np.savez(folder / "matches.npz", xy_a=result.xy_a, xy_b=result.xy_b, score=result.score, agrees=agrees)
    lines = match_lines_picture(*images, result.xy_a, result.xy_b, agrees)
    files = (*written, "matches.npz", _write_picture(folder, "matches.png", lines))
    return PairPictures(folder, files, matches=len(agrees), agreeing=int(agrees.sum()))


def _write_dense_match(
    folder: Path,
    written: list[str],
    result: DenseMatch,
    images: tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h2 w2 3"]],
) -> PairPictures:
    from recon.io.flo import write_flo
    from recon.render import pictures

    both = (
        ("a_to_b", result.a_to_b, result.consistent_a, images),
        ("b_to_a", result.b_to_a, result.consistent_b, images[::-1]),
    )
    for name, field, consistent, (source, target) in both:
        np.save(folder / f"flow_{name}.npy", field.flow)
        write_flo(folder / f"flow_{name}.flo", field.flow)
        np.save(folder / f"confidence_{name}.npy", field.confidence)
        written += [
            f"flow_{name}.npy",
            f"flow_{name}.flo",
            f"confidence_{name}.npy",
            _write_picture(folder, f"flow_{name}.png", pictures.flow_picture(field.flow)),
            _write_picture(folder, f"warp_{name}.png", pictures.warp_picture(target, field.flow)),
            _write_picture(
                folder, f"consistent_{name}.png", pictures.consistency_picture(source, consistent)
            ),
        ]
    diagnostics = result.diagnostics
    if diagnostics is not None:
        for name, scales in (("a", diagnostics.scale_map_a), ("b", diagnostics.scale_map_b)):
            if scales is not None:
                written.append(_write_picture(folder, f"scales_{name}.png", pictures.scale_picture(scales)))
    return PairPictures(
        folder, tuple(written), float(result.consistent_a.mean()), float(result.consistent_b.mean())
    )


def _agreeing(
    match: SparseMatch, image_a: UInt8[np.ndarray, "h w 3"], image_b: UInt8[np.ndarray, "h w 3"]
) -> Bool[np.ndarray, " n"]:
    """Mask of the matches that agree with the geometry of two images of unknown cameras."""
    from recon.core.cameras import Intrinsics
    from recon.graph.two_view import verify_pair

    cameras = []
    for image in (image_a, image_b):
        height, width = image.shape[:2]
        # Unknown: the focal length is not used, the middle is.
        params = (1.2 * max(width, height), 0.5 * (width - 1), 0.5 * (height - 1))
        cameras.append(Intrinsics("SIMPLE_PINHOLE", params, width, height))
    return verify_pair(match.xy_a, match.xy_b, cameras[0], cameras[1], max_error_px=2.0).inliers
