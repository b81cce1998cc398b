"""Scale propagation: seconds and agreement beside SuperLU, and what the ratio test of its seeds is worth.

    python benchmarks/scale_propagation.py [--quick]

First table: match-aware maps of a Middlebury frame, recon's multigrid and scipy's SuperLU in one run. Second: seeds
of neighbouring photos with surveyed cameras (how many, and the share within 2 px of the epipolar line). Third:
Middlebury frames with the target resized (share of seeds within 2 px of the true flow, and how far the ratio of the
two scale maps is from the resizing factor, over all pixels with true flow: median and 90th percentile of |log2|).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from _common import data_root, machine, table, timed

from recon.features import scale_propagation as room
from recon.features.interest_points import MATCH_RATIO, extract_interest_points, match_interest_points, subset
from recon.features.types import InterestPoints

RATIOS = (1.0, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6)


def seconds(fn: Callable[[], object], repeats: int, warmup: int = 1) -> tuple[float, float, float, float]:
    """Wall seconds (minimum, median, maximum), and the least CPU seconds of one call, all threads together."""
    used = []

    def call() -> None:
        start = time.process_time()
        fn()
        used.append(time.process_time() - start)

    return *timed(call, repeats, warmup), min(used)


def read(path: Path, width: int | None = None) -> np.ndarray:
    image = cv2.imread(str(path))[..., ::-1]
    if width is not None:
        height = round(image.shape[0] * width / image.shape[1])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image)


def speed(root: Path, repeats: int) -> str:
    folder = root / "datasets" / "flow_middlebury" / "Grove2"
    a, b = read(folder / "frame10.png"), read(folder / "frame11.png")
    points_a, points_b = extract_interest_points(a), extract_interest_points(b)
    pairs = match_interest_points(points_a, points_b)
    seeds = subset(points_a, pairs[:, 0])
    rows = []
    for guide, weighting, name in (
        ("image", "linear", "match-aware, linear"),
        ("image", "exponential", "match-aware, exponential"),
        ("geometric", "linear", "geometric"),
    ):
        options = {"guide": guide, "weighting": weighting}
        equations = room._equations(a, seeds, guide, weighting, None)
        assert equations is not None
        exact: list[np.ndarray] = []
        direct = seconds(lambda e=equations, out=exact: out.append(room._solve_directly(e)), 1, 0)
        rows.append([name, "SuperLU", len(seeds), *direct, 0.0])
        ours = seconds(lambda o=options: room.propagate_scales(a, seeds, **o), repeats)
        found = room.propagate_scales(a, seeds, **options)
        error = float((np.abs(found - exact[0][1:-1, 1:-1]) / exact[0][1:-1, 1:-1]).max())
        rows.append([name, "recon", len(seeds), *ours, error])
    both = seconds(lambda: room.propagate_pair_scales(a, b, points_a, points_b, pairs, threads=2), repeats)
    rows.append(["both images of the pair, 2 threads", "recon", 2 * len(seeds), *both, ""])
    return table(
        rows, ["640x480", "solver", "seeds", "min s", "median s", "max s", "CPU s", "largest relative error"]
    )


def camera(entry: dict[str, object], width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    s = width / float(entry["width"])  # type: ignore[arg-type]
    k = np.array(
        [
            [entry["fx"] * s, 0, (entry["cx"] + 0.5) * s - 0.5],  # type: ignore[operator]
            [0, entry["fy"] * s, (entry["cy"] + 0.5) * s - 0.5],  # type: ignore[operator]
            [0, 0, 1],
        ]
    )
    return k, np.array(entry["R"]), np.array(entry["t"])


def epipolar_error(one: tuple, two: tuple, xy_a: np.ndarray, xy_b: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """Distance of each point of B to the epipolar line of its match, in pixels."""
    (k_a, r_a, t_a), (k_b, r_b, t_b) = one, two
    rotation = r_b @ r_a.T
    t = t_b - rotation @ t_a
    cross = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])
    fundamental = np.linalg.inv(k_b).T @ cross @ rotation @ np.linalg.inv(k_a)
    lines = np.column_stack([xy_a, np.ones(len(xy_a))]) @ fundamental.T
    return np.abs((lines[:, :2] * xy_b).sum(1) + lines[:, 2]) / np.hypot(lines[:, 0], lines[:, 1])


def surveyed(root: Path, width: int, gaps: tuple[int, ...]) -> str:
    counts = {ratio: {gap: [0, 0, 0] for gap in gaps} for ratio in RATIOS}
    for scene in ("fountain-P11", "Herz-Jesus-P8", "entry-P10"):
        folder = root / "datasets" / "strecha" / scene
        entries = json.loads((folder / "cameras.json").read_text())["images"]
        points = [extract_interest_points(read(folder / "images" / e["name"], width)) for e in entries]
        cameras = [camera(e, width) for e in entries]
        for gap in gaps:
            for i in range(0, len(entries) - gap, gap):
                for ratio in RATIOS:
                    pairs = match_interest_points(points[i], points[i + gap], ratio=ratio)
                    error = epipolar_error(
                        cameras[i],
                        cameras[i + gap],
                        points[i].xy[pairs[:, 0]],
                        points[i + gap].xy[pairs[:, 1]],
                    )
                    counts[ratio][gap][0] += len(pairs)
                    counts[ratio][gap][1] += int((error < 2).sum())
                    counts[ratio][gap][2] += 1
    rows = []
    for ratio in RATIOS:
        row: list[object] = [ratio]
        for gap in gaps:
            n, good, used = counts[ratio][gap]
            row += [n // used, f"{100 * good / max(n, 1):.0f}%"]
        rows.append(row)
    headers = ["ratio"] + [
        text for gap in gaps for text in (f"seeds a pair, gap {gap}", "on the epipolar line")
    ]
    return table(rows, headers)


def read_flo(path: Path) -> np.ndarray:
    raw = path.read_bytes()
    width, height = np.frombuffer(raw, np.int32, 2, 4)
    return np.frombuffer(raw, np.float32, 2 * width * height, 12).reshape(height, width, 2)


def resized(root: Path, sets: tuple[str, ...], factors: tuple[float, ...]) -> str:
    rows = []
    for factor in factors:
        found: dict[float, list[list[float]]] = {ratio: [] for ratio in RATIOS}
        for name in sets:
            folder = root / "datasets" / "flow_middlebury" / name
            a, b, flow = (
                read(folder / "frame10.png"),
                read(folder / "frame11.png"),
                read_flo(folder / "flow10.flo"),
            )
            height, width = a.shape[:2]
            size = (round(width * factor), round(height * factor))
            b = cv2.resize(b, size, interpolation=cv2.INTER_AREA) if factor < 1 else b
            scale = np.array(size) / [width, height]
            y, x = np.mgrid[:height, :width]
            target = (np.stack([x, y], -1) + flow + 0.5) * scale - 0.5
            inside = (
                (np.abs(flow).max(-1) < 1e9) & (target > 0).all(-1) & (target < np.array(size) - 1).all(-1)
            )
            points: tuple[InterestPoints, InterestPoints] = (
                extract_interest_points(a),
                extract_interest_points(b),
            )
            for ratio in RATIOS:
                pairs = match_interest_points(*points, ratio=ratio)
                xy = points[0].xy[pairs[:, 0]]
                column = np.clip(np.rint(xy[:, 0]).astype(int), 0, width - 1)
                row = np.clip(np.rint(xy[:, 1]).astype(int), 0, height - 1)
                known = inside[row, column]
                expected = (xy + flow[row, column] + 0.5) * scale - 0.5
                good = np.hypot(*(points[1].xy[pairs[:, 1]] - expected)[known].T) < 2
                map_a, map_b = room.propagate_pair_scales(a, b, *points, pairs)
                t = np.rint(target[inside]).astype(int)
                off = np.abs(np.log2(map_b[t[:, 1], t[:, 0]] / map_a[inside] / factor))
                found[ratio].append(
                    [len(pairs), 100 * good.mean(), float(np.median(off)), float(np.percentile(off, 90))]
                )
        for ratio in RATIOS:
            n, good_share, median, tail = np.mean(found[ratio], axis=0)
            rows.append([factor, ratio, int(n), f"{good_share:.0f}%", float(median), float(tail)])
    return table(rows, ["resized", "ratio", "seeds", "correct", "median |log2 error|", "90th percentile"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer repeats, photos and sets")
    quick = parser.parse_args().quick
    root = data_root()
    print(machine(), "\n")
    print(speed(root, 3 if quick else 7), "\n")
    print(
        f"Ratio test of the seeds (default {MATCH_RATIO}); photos of three scenes at {480 if quick else 640} px"
    )
    print(surveyed(root, 480 if quick else 640, (1, 3) if quick else (1, 2, 3)), "\n")
    sets = ("Grove2", "Urban2") if quick else ("Grove2", "RubberWhale", "Urban2", "Venus")
    print(f"Middlebury, mean over {', '.join(sets)}")
    print(resized(root, sets, (0.5, 0.35) if quick else (1.0, 0.5, 0.35)))


if __name__ == "__main__":
    main()
