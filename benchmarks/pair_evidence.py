"""The chance that a pair's relative pose is right: the fit of its model, and how well it is calibrated.

    python benchmarks/pair_evidence.py RUNS...          # workspaces of benchmarks/repeated_structure.py --keep

Each workspace must come from photos whose folder has a cameras.json beside it. A pair is right when rotation and
direction of translation are within 5 degrees of the truth. The logistic model of ``recon.graph.evidence`` is fitted by
penalised maximum likelihood (every scene has the same weight) to all scenes but one and asked about that one; the
tables are of these answers. The last line has the coefficients from all scenes, as they stand in the code.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import networkx as nx
import numpy as np
from _common import machine, table
from repeated_structure import RIGHT_DEGREES, pair_error
from scipy.optimize import minimize

from recon.graph.evidence import (
    DENSE_FEATURES,
    SPARSE_FEATURES,
    PairSigns,
    dense_features,
    sparse_features,
)
from recon.graph.view_graph import relative_pose, signs_of_edge
from recon.io.cameras_json import poses_from_cameras_json

# Weight of the square of each coefficient (of features brought to unit variance) against the mean log-likelihood.
_PENALTY = 0.01
# Signs that speak for a pair or against it, depending on the others: over a wide area more matches are expected.
_FREE = ("log spread", "log angle", "log stretch")
_BINS = (0.0, 0.05, 0.2, 0.5, 0.8, 0.95, 1.0)


def pairs_of_run(out: Path) -> list[tuple[PairSigns, bool]]:
    """The signs of every verified pair of a workspace, and whether its pose is right."""
    source = Path(json.loads((out / "manifest.json").read_text())["source"])
    truth = poses_from_cameras_json(source.parent / "cameras.json")
    graph = nx.read_graphml(out / "pair_evidence.graphml", node_type=int)
    names = nx.get_node_attributes(graph, "name")
    found = []
    for a, b in sorted((min(edge), max(edge)) for edge in graph.edges):
        pose, signs = relative_pose(graph, a, b), signs_of_edge(graph, a, b)
        if pose is None or signs is None or names[a] not in truth or names[b] not in truth:
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
    said = np.zeros(len(right))
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
    print(f"leave one scene out; {machine()}\n")
    headers = ["scene", "pairs", "right", "share right", "mean chance", "told apart at 0.5", "Brier"]
    print(table(rows, headers) + "\n")
    print(table(calibration(said, right), ["chance", "pairs", "mean chance", "share right"]) + "\n")
    beta = fitted(features, right, weights(scenes, right), names)
    print(
        table(
            [[n, float(b)] for n, b in zip(("intercept", *names), beta, strict=True)], ["feature", "weight"]
        )
    )
    print(f"\nEvidenceModel({beta[0]:.3f}, ({', '.join(f'{b:.3f}' for b in beta[1:])}))")


if __name__ == "__main__":
    main()
