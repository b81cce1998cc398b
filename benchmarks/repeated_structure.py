"""Scenes that fold, rendered: pairs and cameras against the truth, beside COLMAP's two mappers on the same photos.

    python benchmarks/repeated_structure.py                          # every scene, intrinsics known and unknown
    python benchmarks/repeated_structure.py --scenes courtyard --intrinsics known --keep FOLDER
    python benchmarks/repeated_structure.py --real                   # real scenes with known cameras as well
    python benchmarks/repeated_structure.py --held-out               # scenes that nothing was set on

A pair is right when its relative rotation and its direction of translation are within 5 degrees of the truth; pairs
without a pose are not counted. Recall counts the right pairs that stay among all that were right when they were
verified. Centre errors are means over the registered photos after the similarity that fits best, in percent of the
extent of the true centres; "all" counts a photo that is left out with the whole extent. With --keep, renderings,
workspaces and matches stay, and a second run begins with what is not done.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pycolmap
from _common import data_root, machine, table
from held_out_scenes import HELD_OUT

import recon.api
from recon.core.similarity import camera_center
from recon.engine.recipe import load_recipe
from recon.engine.runner import RunOptions, run_stages
from recon.errors import ReconError
from recon.evaluation.poses import align_similarity_robust, poses_from_colmap
from recon.graph.view_graph import relative_pose
from recon.io.cameras_json import poses_from_cameras_json, read_cameras_json
from recon.run.folder import RunFolder
from recon.run.inputs import RunInputs
from recon.synthetic.files import write_scene
from recon.synthetic.repeated import REPEATED_SCENES, make_repeated_scene

RIGHT_DEGREES = 5.0
"""Up to so many degrees in rotation and in direction of translation a pair is right."""

NO_FILTER = ("verify.min_evidence=0.0", "verify.loops=false")
"""What turns the filter of pairs off."""

REAL = {
    "fountain-P11": "strecha/fountain-P11",
    "Herz-Jesus-P8": "strecha/Herz-Jesus-P8",
    "entry-P10": "strecha/entry-P10",
    "templeSparseRing": "middlebury_mvs/templeSparseRing",
    "tnt_barn3": "pose_small/tnt_barn3",
    "lund_door": "pose_small/lund_door",
}
"""Real scenes with known cameras, below datasets/."""


@dataclass(frozen=True)
class Variant:
    """A way to get cameras: a recipe of this program with overrides, or one of COLMAP's mappers."""

    recipe: str = ""
    overrides: tuple[str, ...] = ()
    colmap: str = ""


VARIANTS = {
    "default": Variant("siftflow"),
    "no filter": Variant("siftflow", NO_FILTER),
    "recipe sift": Variant("sift"),
    "COLMAP incremental": Variant(colmap="incremental"),
    "COLMAP global": Variant(colmap="global"),
}


def run_recon(
    folder: Path, out: Path, variant: Variant, known: bool, cache: Path, options: argparse.Namespace
) -> None:
    """Run up to the cameras; dense fields are shared between all runs of the same photos."""
    stages = recon.api.stages()
    overrides = [f"match.max_size={options.match_size}", *variant.overrides]
    recipe = load_recipe(variant.recipe, stages, options.quality, overrides)
    photos = str(folder / "images")
    intrinsics = str(folder / "cameras.json") if known else None
    inputs = RunInputs((photos,), intrinsics=intrinsics, field_cache=str(cache))
    restart = "verify" if options.again and (out / "pairs.json").exists() else None
    how = RunOptions(
        inputs=inputs,
        described=inputs.described(),
        source=photos,
        threads=1,
        seed=0,
        stop_after="map",
        restart_from=restart,
    )
    run_stages(stages, recipe, out, how)


def run_colmap(folder: Path, out: Path, mapper: str, known: bool) -> None:
    """COLMAP's own features, exhaustive matching and mapping with their defaults."""
    out.mkdir(parents=True, exist_ok=True)
    database = out / "database.db"
    options = pycolmap.ImageReaderOptions()
    if known:
        K = next(iter(read_cameras_json(folder / "cameras.json").values())).K
        options.camera_model = "PINHOLE"
        options.camera_params = f"{K[0, 0]},{K[1, 1]},{K[0, 2] + 0.5},{K[1, 2] + 0.5}"
    if not database.exists():
        pycolmap.extract_features(
            database, folder / "images", camera_mode=pycolmap.CameraMode.SINGLE, reader_options=options
        )
        pycolmap.match_exhaustive(database)
    if mapper == "incremental":
        incremental = pycolmap.IncrementalPipelineOptions()
        incremental.random_seed = 0
        incremental.ba_refine_focal_length = incremental.ba_refine_extra_params = not known
        models = pycolmap.incremental_mapping(database, folder / "images", out / mapper, incremental)
    else:
        whole = pycolmap.GlobalPipelineOptions()
        whole.random_seed = 0
        adjustment = whole.mapper.bundle_adjustment
        adjustment.refine_focal_length = adjustment.refine_extra_params = not known
        models = pycolmap.global_mapping(database, folder / "images", out / mapper, whole)
    target = out / f"{mapper}-best"
    target.mkdir(exist_ok=True)
    if models:
        max(models.values(), key=lambda model: model.num_reg_images()).write(target)


def camera_figures(model: Path, truth: dict[str, np.ndarray]) -> tuple[int, float, float]:
    """Registered photos, mean centre error in percent of the extent, and the same with photos left out counted."""
    centers = {name: camera_center(pose) for name, pose in truth.items()}
    extent = extent_of(centers)
    if not (model / "images.bin").exists():
        return 0, float("nan"), 100.0
    found = poses_from_colmap(model)
    names = sorted(set(found) & set(centers))
    if len(names) < 3:
        return len(names), float("nan"), 100.0
    a = np.array([camera_center(found[name]) for name in names])
    b = np.array([centers[name] for name in names])
    errors = np.minimum(100 * np.linalg.norm(align_similarity_robust(a, b)(a) - b, axis=1) / extent, 100.0)
    everyone = (errors.sum() + 100.0 * (len(centers) - len(names))) / len(centers)
    return len(names), float(errors.mean()), float(everyone)


def extent_of(centers: dict[str, np.ndarray]) -> float:
    """Largest side of the box round the true centres."""
    return float(np.ptp(np.array(list(centers.values())), axis=0).max())


def pair_error(b_from_a: np.ndarray, pose_a: np.ndarray, pose_b: np.ndarray) -> float:
    """Degrees, the larger of the errors of rotation and of direction of translation."""
    rotation = pose_b[:, :3] @ pose_a[:, :3].T
    shift = pose_b[:, 3] - rotation @ pose_a[:, 3]
    turned = b_from_a[:, :3] @ rotation.T
    by = np.degrees(np.arccos(np.clip((np.trace(turned) - 1) / 2, -1, 1)))
    lengths = np.linalg.norm(shift) * np.linalg.norm(b_from_a[:, 3])
    along = np.degrees(np.arccos(np.clip(shift @ b_from_a[:, 3] / max(lengths, 1e-12), -1, 1)))
    return float(max(by, along))


def pair_figures(out: Path, truth: dict[str, np.ndarray]) -> tuple[int, float, float]:
    """Kept pairs, and precision and recall of what is kept in percent; pairs without a pose do not count."""
    kept = nx.read_graphml(out / "view_graph.graphml", node_type=int)
    every = nx.read_graphml(out / "pair_evidence.graphml", node_type=int)
    names = nx.get_node_attributes(kept, "name")
    right, right_kept, counted = 0, 0, 0
    for a, b in sorted((min(edge), max(edge)) for edge in every.edges):
        pose = relative_pose(every, a, b)
        if pose is None or names[a] not in truth or names[b] not in truth:
            continue
        good = pair_error(pose, truth[names[a]], truth[names[b]]) <= RIGHT_DEGREES
        right += good
        counted += kept.has_edge(a, b)
        right_kept += good and kept.has_edge(a, b)
    return kept.number_of_edges(), 100 * right_kept / max(counted, 1), 100 * right_kept / max(right, 1)


def figures(
    name: str, folder: Path, root: Path, variant: str, known: bool, options: argparse.Namespace
) -> list[Any]:
    """One row of the table."""
    how = VARIANTS[variant]
    mode = "known" if known else "unknown"
    truth = dict(poses_from_cameras_json(folder / "cameras.json"))
    began = time.process_time()
    kept: Any = ""
    precision: Any = ""
    recall: Any = ""
    if how.colmap:
        out = root / f"{name}-{mode}-colmap"
        model = out / f"{how.colmap}-best"
        if not model.exists():
            run_colmap(folder, out, how.colmap, known)
    else:
        out = root / f"{name}-{mode}-{variant.replace(' ', '-')}"
        model = out / "sparse" / "0"
        try:
            run_recon(folder, out, how, known, root / "fields", options)
        except ReconError as error:
            print(name, mode, variant, error, flush=True)
            model = out / "nothing"
        if (out / "pair_evidence.graphml").exists():
            kept, precision, recall = pair_figures(out, truth)
    registered, mean, everyone = camera_figures(model, truth)
    seconds = time.process_time() - began
    trust = None if how.colmap else RunFolder(out).trust()
    verdict = "" if trust is None else trust["verdict"]
    return [
        name, mode, variant, kept, _percent(precision), _percent(recall), f"{registered}/{len(truth)}",
        f"{mean:.3f}", f"{everyone:.3f}", verdict, f"{seconds:.0f}",
    ]  # fmt: skip


def _percent(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.0f}"


def scene_folder(name: str, root: Path, size: Sequence[int], own: float, seed: int) -> Path:
    """The photos and true cameras of a scene, rendered where they are not there yet."""
    if name in REAL:
        return data_root() / "datasets" / REAL[name]
    folder = root / "scenes" / name
    maker = None
    if name in HELD_OUT:
        maker, first, own = HELD_OUT[name]
        seed += first
    if not (folder / "truth" / "mesh.ply").exists():
        write_scene(
            make_repeated_scene(name, size=(size[0], size[1]), own=own, seed=seed, maker=maker), folder
        )
    return folder


def main() -> None:
    """Run the chosen scenes and variants and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", nargs="+", choices=[*REPEATED_SCENES, *HELD_OUT, *REAL], default=None)
    parser.add_argument("--held-out", action="store_true", help="those of held_out_scenes.py alone")
    parser.add_argument("--real", action="store_true", help="real scenes with known cameras as well")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--intrinsics", choices=["known", "unknown", "both"], default="both")
    parser.add_argument("--quality", default="preview")
    parser.add_argument("--match-size", type=int, default=320, help="longest side of dense matching")
    parser.add_argument("--size", nargs=2, type=int, default=[512, 384])
    parser.add_argument("--own", type=float, default=0.4, help="weight of detail that does not repeat")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the renderings; added to that of a held-out scene"
    )
    parser.add_argument("--keep", type=Path, help="folder for renderings, workspaces and matches")
    parser.add_argument("--again", action="store_true", help="with --keep: verify and map again")
    options = parser.parse_args()
    pycolmap.logging.minloglevel = pycolmap.logging.Level.ERROR.value
    names = options.scenes or [
        *(HELD_OUT if options.held_out else REPEATED_SCENES),
        *(REAL if options.real else ()),
    ]
    modes = [mode for mode in ("known", "unknown") if options.intrinsics in (mode, "both")]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        root = options.keep or Path(scratch)
        for name in names:
            folder = scene_folder(name, root, options.size, options.own, options.seed)
            for mode in modes:
                for variant in options.variants:
                    rows.append(figures(name, folder, root, variant, mode == "known", options))
                    print(*rows[-1], flush=True)
    headers = [
        "scene", "intrinsics", "variant", "pairs", "precision %", "recall %", "registered", "mean error %", "all %",
        "verdict", "CPU s",
    ]  # fmt: skip
    print(f"\nquality {options.quality}, errors in percent of the extent of the cameras; {machine()}\n")
    print(table(rows, headers))


if __name__ == "__main__":
    main()
