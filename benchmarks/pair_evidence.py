"""The chance that a pair's relative pose is right: the fit of its model, and how well it is calibrated.

    python benchmarks/pair_evidence.py RUNS...          # workspaces of benchmarks/repeated_structure.py --keep

Each workspace must come from photos whose folder has a cameras.json beside it. A pair is right when rotation and
direction of translation are within 5 degrees of the truth. The logistic model of ``recon.graph.evidence`` is fitted by
penalised maximum likelihood (every scene has the same weight) to all scenes but one and asked about that one; the
tables are of these answers, as they are and after the monotone correction (isotonic regression) that the other scenes
ask for. A further table is of the chances in the workspaces, after loops: how many of the pairs are far from the truth
as a verdict on a model counts it. The last line has the coefficients from all scenes, as they stand in the code.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import networkx as nx
import numpy as np
from _common import machine, table
from repeated_structure import RIGHT_DEGREES, pair_error
from scipy.optimize import isotonic_regression, minimize

from recon.datasets.given_cameras import read_cameras
from recon.graph.contradictions import chance_of_so_many, model_contradictions
from recon.graph.evidence import (
    DENSE_FEATURES,
    SPARSE_FEATURES,
    PairSigns,
    dense_features,
    sparse_features,
)
from recon.graph.loops import STRONG
from recon.graph.view_graph import relative_pose, signs_of_edge
from recon.sfm.trust import Thresholds

# Weight of the square of each coefficient (of features brought to unit variance) against the mean log-likelihood.
_PENALTY = 0.01
# Signs that speak for a pair or against it, depending on the others: over a wide area more matches are expected.
_FREE = ("log spread", "log angle", "log stretch")
_BINS = (0.0, 0.05, 0.2, 0.5, 0.8, 0.95, 1.0)


def graph_and_truth(out: Path) -> tuple[nx.Graph, dict[str, np.ndarray]]:
    """The graph of all pairs of a workspace, and the true poses by photo."""
    source = Path(json.loads((out / "manifest.json").read_text())["source"])
    truth = {photo: camera.cam_from_world for photo, camera in read_cameras(source.parent).items()}
    return nx.read_graphml(out / "pair_evidence.graphml", node_type=int), truth


def far_from_truth(out: Path) -> list[tuple[float, bool, bool]]:
    """Of every pair with a pose: its chance after loops, whether points made the pose, and whether it is far
    from the truth by the measure of verdicts."""
    graph, truth = graph_and_truth(out)
    poses = {i: truth[name] for i, name in nx.get_node_attributes(graph, "name").items() if name in truth}
    limits = Thresholds()
    found = model_contradictions(graph, poses, min_evidence=0.0)
    far = {
        one.pair for one in found.pairs if one.turn > limits.far_turn or one.direction > limits.far_direction
    }
    return [
        (float(graph.edges[a, b]["evidence"]), bool(graph.edges[a, b].get("by_points", False)), (a, b) in far)
        for a, b in sorted((min(edge), max(edge)) for edge in graph.edges)
        if relative_pose(graph, a, b) is not None and a in poses and b in poses
    ]


def corrected(said: np.ndarray, right: np.ndarray, weight: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Chances after isotonic regression of what was right on what was said, for other stated chances."""
    order = np.argsort(said, kind="stable")
    fit = isotonic_regression(right[order].astype(float), weights=weight[order]).x
    return np.interp(asked, said[order], fit)


def pairs_of_run(out: Path) -> list[tuple[PairSigns, bool]]:
    """The signs of every verified pair of a workspace, and whether its pose is right."""
    graph, truth = graph_and_truth(out)
    names = nx.get_node_attributes(graph, "name")
    found = []
    for a, b in sorted((min(edge), max(edge)) for edge in graph.edges):
        pose, signs = relative_pose(graph, a, b), signs_of_edge(graph, a, b)
        if pose is None or signs is None or names[a] not in truth or names[b] not in truth:
            continue
        if graph.edges[a, b].get("by_points", False):  # the signs are those of a sparse match
            continue
        found.append((signs, pair_error(pose, truth[names[a]], truth[names[b]]) <= RIGHT_DEGREES))
    return found


def fitted(features: np.ndarray, right: np.ndarray, weight: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Coefficients, the intercept first; all but those of ``_FREE`` may speak for a pair only."""
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-9
    scaled = np.column_stack([np.ones(len(features)), (features - mean) / deviation])
    side = np.where(right, 1.0, -1.0)

    def loss(beta: np.ndarray) -> tuple[float, np.ndarray]:
        margin = side * (scaled @ beta)
        slope = -weight * side / (1 + np.exp(np.clip(margin, -40, 40)))
        value = float(weight @ np.logaddexp(0, -margin)) + _PENALTY * float(beta[1:] @ beta[1:])
        return value, scaled.T @ slope + 2 * _PENALTY * np.r_[0, beta[1:]]

    bounds = [(None, None), *[(None if name in _FREE else 0.0, None) for name in names]]
    beta = minimize(loss, np.zeros(scaled.shape[1]), jac=True, bounds=bounds, method="L-BFGS-B").x
    return np.r_[beta[0] - (beta[1:] * mean / deviation).sum(), beta[1:] / deviation]


def weights(scene_of: Sequence[str], right: np.ndarray) -> np.ndarray:
    """One in all; the same for each scene."""
    names, count = np.unique(scene_of, return_counts=True)
    share = dict(zip(names, 1 / (len(names) * count), strict=True))
    return np.array([share[name] for name in scene_of]) * np.ones(len(right))


def calibration(said: np.ndarray, right: np.ndarray) -> list[list[object]]:
    """Rows of stated and true chances by bins of the stated one."""
    rows: list[list[object]] = []
    for low, high in pairwise(_BINS):
        inside = (said >= low) & ((said < high) | (high == 1.0))
        if inside.any():
            rows.append(
                [
                    f"{low:g} to {high:g}",
                    int(inside.sum()),
                    float(said[inside].mean()),
                    float(right[inside].mean()),
                ]
            )
    return rows


def after_loops(runs: Sequence[Path]) -> None:
    """Print how well verdicts know the pairs of the workspaces: by chance, and by workspace."""
    found = {run: far_from_truth(run) for run in runs}
    every = [one for some in found.values() for one in some]
    for kind, by_points in (("dense fields", False), ("points instead of a field", True)):
        chance = np.array([p for p, points, _ in every if points == by_points])
        near = np.array([not far for _, points, far in every if points == by_points])
        if len(chance):
            print(f"after loops, poses of {kind}\n")
            print(
                table(calibration(chance, near), ["chance", "pairs", "mean chance", "share not far"]) + "\n"
            )
    rows = []
    for run, some in found.items():
        strong = [(p, far) for p, _, far in some if p >= STRONG]
        wrong, far = [1 - p for p, _ in strong], sum(far for _, far in strong)
        rows.append([run.name, len(strong), math.fsum(wrong), far, chance_of_so_many(wrong, far)])
    headers = ["workspace", "likely pairs", "wrong, expected", "far", "chance of so many"]
    print("a right model, held against its pairs\n")
    print(table(rows, headers) + "\n")


def main() -> None:
    """Fit, check by leaving scenes out, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--sparse", action="store_true", help="the runs are those of a sparse matcher")
    options = parser.parse_args()
    scene_of: list[str] = []
    data: list[tuple[PairSigns, bool]] = []
    for run in options.runs:
        pairs = pairs_of_run(run)
        data += pairs
        scene_of += [run.name.split("-known")[0].split("-unknown")[0]] * len(pairs)
    names = SPARSE_FEATURES if options.sparse else DENSE_FEATURES
    make = sparse_features if options.sparse else dense_features
    features = np.array([make(signs) for signs, _ in data])
    right = np.array([good for _, good in data])
    scenes = np.array(scene_of)
    said, mended = np.zeros(len(right)), np.zeros(len(right))
    rows = []
    for scene in np.unique(scenes):
        other = scenes != scene
        if not other.any():
            continue
        beta = fitted(features[other], right[other], weights(scenes[other], right[other]), names)
        odds = beta[0] + features[~other] @ beta[1:]
        said[~other] = np.clip(1 / (1 + np.exp(-odds)), 0.005, 0.995)
        here, good = said[~other], right[~other]
        rows.append(
            [
                scene, len(good), int(good.sum()), float(good.mean()), float(here.mean()),
                float(((here >= 0.5) == good).mean()), float(np.mean((here - good) ** 2)),
            ]
        )  # fmt: skip
    for scene in np.unique(scenes):
        other = scenes != scene
        if other.any():
            weight = weights(scenes[other], right[other])
            mended[~other] = corrected(said[other], right[other], weight, said[~other])
    print(f"leave one scene out; {machine()}\n")
    headers = ["scene", "pairs", "right", "share right", "mean chance", "told apart at 0.5", "Brier"]
    print(table(rows, headers) + "\n")
    headers = ["chance", "pairs", "mean chance", "share right"]
    print(table(calibration(said, right), headers) + "\n")
    print(
        f"corrected: Brier {np.mean((mended - right) ** 2):.3f} instead of {np.mean((said - right) ** 2):.3f}\n"
    )
    print(table(calibration(mended, right), headers) + "\n")
    after_loops(options.runs)
    beta = fitted(features, right, weights(scenes, right), names)
    print(
        table(
            [[n, float(b)] for n, b in zip(("intercept", *names), beta, strict=True)], ["feature", "weight"]
        )
    )
    print(f"\nEvidenceModel({beta[0]:.3f}, ({', '.join(f'{b:.3f}' for b in beta[1:])}))")


if __name__ == "__main__":
    main()
