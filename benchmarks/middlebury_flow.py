"""Flow error on the Middlebury training sets, photos as they are and with the target resized.

    python benchmarks/middlebury_flow.py [--shrink 2] [--sets Venus] [--factors 1 0.5] [--methods match-aware/linear]

Average endpoint error (pixels of the target) and average angular error (degrees) of the flow at every pixel whose
true flow is known and points into the target, without and with sub-pixel refinement. A method that ends in
"+aligned" first resamples the target into the source's frame by what sparse matches agree on. With --keep, every
result is written to a file at once, and what is in the file is not computed again. --minus then prints the mean
difference of the endpoint error from a matcher of which the file has the same sets (method none), with its 95% interval
(bootstrap over the sets: with four of them wide, and no more than a hint).
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from _common import data_root, machine, table

from recon.evaluation.bootstrap import paired_difference
from recon.evaluation.flow import known_flow
from recon.features.interest_points import extract_interest_points, match_interest_points
from recon.io.flo import read_flo
from recon.matching.alignment import Placement, similarity_of_seeds
from recon.matching.consistency import inside_border, round_trip_error
from recon.matching.registry import create_matcher
from recon.matching.siftflow_matcher import REFINEMENT
from recon.matching.subpixel import DEFAULT_REFINEMENT, refine_flow
from recon.matching.types import MatchImage, PairContext

METHODS = (
    "none",
    "geometric",
    "image-aware/linear",
    "image-aware/exponential",
    "match-aware/linear",
    "match-aware/exponential",
    "none+aligned",
    "match-aware/linear+aligned",
)


def load_set(folder: Path, shrink: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Both frames, the true flow and where it is known, all shrunk by a whole factor."""
    frames = [cv2.imread(str(folder / f"frame{k}.png"))[..., ::-1] for k in (10, 11)]
    flow = read_flo(folder / "flow10.flo")
    known = known_flow(flow)
    if shrink > 1:
        height, width = (n // shrink for n in flow.shape[:2])
        frames = [f[: height * shrink, : width * shrink] for f in frames]
        frames = [cv2.resize(f, (width, height), interpolation=cv2.INTER_AREA) for f in frames]
        blocks = flow[: height * shrink, : width * shrink].reshape(height, shrink, width, shrink, 2)
        flow = blocks.mean((1, 3)) / shrink
        known = known[: height * shrink, : width * shrink].reshape(height, shrink, width, shrink).all((1, 3))
    return np.ascontiguousarray(frames[0]), np.ascontiguousarray(frames[1]), flow, known


def resized_target(b: np.ndarray, flow: np.ndarray, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """The target at another size, and the true flow to it."""
    if factor == 1:
        return b, flow
    height, width = (round(n * factor) for n in b.shape[:2])
    small = cv2.resize(b, (width, height), interpolation=cv2.INTER_AREA)
    size = np.array([width / b.shape[1], height / b.shape[0]])
    y, x = np.mgrid[0 : flow.shape[0], 0 : flow.shape[1]]
    p = np.stack([x, y], -1)
    return small, (p + flow + 0.5) * size - 0.5 - p


def errors(flow: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> tuple[float, float]:
    """Average endpoint error in pixels, average angular error in degrees."""
    f, t = flow[valid].astype(np.float64), truth[valid]
    endpoint = np.linalg.norm(f - t, axis=-1)
    cosine = (1 + (f * t).sum(-1)) / np.sqrt((1 + (f**2).sum(-1)) * (1 + (t**2).sum(-1)))
    return float(endpoint.mean()), float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean())


def figures(there: np.ndarray, back: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> list[float]:
    """AEE and AAE of all valid pixels, AEE of the consistent ones and their share."""
    good = (round_trip_error(there, back) <= 1.5) & inside_border(there, back.shape[:2], 0) & valid
    consistent = errors(there, truth, good)[0] if good.any() else float("nan")
    return [*errors(there, truth, valid), consistent, float(good.sum() / valid.sum())]


def one_pair(
    images: list[MatchImage], truth: np.ndarray, valid: np.ndarray, matcher_name: str, method: str,
    extra: dict[str, str],
) -> list[float]:  # fmt: skip
    """``figures`` without and with sub-pixel refinement."""
    name, _, aligned = method.partition("+")
    propagation, _, weighting = name.partition("/")
    settings = dict(extra)
    if matcher_name == "siftflow":
        settings["propagation"] = propagation
    if weighting:
        settings["weighting"] = weighting
    a, b = images
    size_a, size_b = ((i.rgb.shape[1], i.rgb.shape[0]) for i in images)
    similarity = None
    if aligned and a.points is not None and b.points is not None:
        # The pipeline leaves photos that merely differ in size to the matcher; here the size counts as a change.
        seeds = match_interest_points(a.points, b.points)
        similarity = similarity_of_seeds(a.points, b.points, seeds, size_a, size_a)
    place = Placement(0, similarity, size_a, size_b)
    refining = matcher_name not in ("dis", "farneback")
    flows = []
    for subpixel in (False, True) if refining else (True,):
        if subpixel and refining and similarity is None and a.rgb.shape == b.rgb.shape:
            # The whole-pixel flow of before, refined as the matcher does it.
            grays = [cv2.cvtColor(i.rgb, cv2.COLOR_RGB2GRAY) for i in images]
            there, back = flows[-1]
            chosen = REFINEMENT if matcher_name == "siftflow" else DEFAULT_REFINEMENT
            flows.append(
                (
                    refine_flow(grays[0], grays[1], there, settings=chosen),
                    refine_flow(grays[1], grays[0], back, settings=chosen),
                )
            )
            continue
        choice: dict[str, Any] = {"subpixel": subpixel} if refining else {}
        matcher = create_matcher(matcher_name, **settings, **choice)
        match = place.back(matcher.match(*(matcher.prepare(i) for i in (a, place.place(b))), PairContext()))
        flows.append((match.a_to_b.flow, match.b_to_a.flow))
    return [value for there, back in flows for value in figures(there, back, truth, valid)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shrink", type=int, default=1, help="shrink both photos first (for a quick look)")
    parser.add_argument("--sets", nargs="*", default=["RubberWhale", "Venus", "Grove2", "Urban2"])
    parser.add_argument("--factors", nargs="*", type=float, default=[1.0, 0.5, 0.35])
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further matcher settings")
    parser.add_argument("--matcher", default="siftflow")
    parser.add_argument("--keep", type=Path, help="file for the results, one JSON line each")
    parser.add_argument("--minus", metavar="MATCHER", help="compare with this one's results in the kept file")
    arguments = parser.parse_args()
    extra = dict(item.split("=", 1) for item in arguments.set)

    root = data_root() / "datasets" / "flow_middlebury"
    print(f"Middlebury flow ({', '.join(arguments.sets)}), shrunk by {arguments.shrink}. {machine()}\n")
    done: dict[str, list[float]] = {}
    if arguments.keep and arguments.keep.is_file():
        done = dict(json.loads(line) for line in arguments.keep.read_text().splitlines())
    rows = []
    mean: dict[tuple[float, str], list[list[float]]] = defaultdict(list)
    for factor in arguments.factors:
        for name in arguments.sets:
            a, b, flow, known = load_set(root / name, arguments.shrink)
            b, truth = resized_target(b, flow, factor)
            y, x = np.mgrid[0 : flow.shape[0], 0 : flow.shape[1]]
            target = np.stack([x, y], -1) + truth
            valid = known & (target >= 0).all(-1) & (target <= np.array(b.shape[1::-1]) - 1).all(-1)
            images = [MatchImage(i, points=extract_interest_points(i)) for i in (a, b)]
            for method in arguments.methods:
                key = f"{arguments.matcher} {extra} {arguments.shrink} {factor:g} {name} {method}"
                if key not in done:
                    start = time.perf_counter()
                    values = one_pair(images, truth, valid, arguments.matcher, method, extra)
                    done[key] = [*values, time.perf_counter() - start]
                    if arguments.keep:
                        with arguments.keep.open("a") as file:
                            file.write(json.dumps([key, done[key]]) + "\n")
                rows.append([f"{factor:g}", name, method, *done[key]])
                print(rows[-1], flush=True)
                mean[factor, method].append(done[key][:-1])
    headers = ["target", "set", "propagation"]
    headers += ["AEE", "AAE", "AEE consistent", "consistent"]
    if len(rows[0]) > 8:
        headers += ["AEE sub-pixel", "AAE sub-pixel", "AEE consistent", "consistent"]
    headers.append("s/pair")
    for (factor, method), values in mean.items():
        rows.append([f"{factor:g}", "mean", method, *np.mean(values, 0).tolist(), ""])
    print()
    print(table(rows, headers))
    for factor, method in mean if arguments.minus else ():
        mine, other = (
            {
                name: done[key][-5]
                for name in arguments.sets
                if (key := f"{who} {arguments.shrink} {factor:g} {name} {how}") in done
            }
            for who, how in ((f"{arguments.matcher} {extra}", method), (f"{arguments.minus} {{}}", "none"))
        )
        test = paired_difference(mine, other)
        print(
            f"\ntarget {factor:g}, {method} minus {arguments.minus}: AEE {test.difference:+.4f} "
            f"[{test.low:+.4f}, {test.high:+.4f}] over {test.count} sets"
        )


if __name__ == "__main__":
    main()
