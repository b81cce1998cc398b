"""Dense SIFT with a scale per pixel: seconds beside OpenCV, and how often the nearest descriptor is the true one.

    python benchmarks/dense_sift.py [--quick]

First table: one 640x480 photo, recon's ladder and gather, recon's fixed-scale descriptor, and OpenCV's SIFT.compute
with a keypoint at every pixel, in one run. Second: Middlebury frames with the target resized; for random pixels
with known flow the descriptor of the first frame is compared with all in a window of the second round the true
position: share whose nearest (L1) lies within 1 and 2 pixels. Scale maps are match-aware.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from _common import data_root, machine, table, timed
from numba import njit

from recon.features.dense_sift import SMOOTHING, build_ladder, dense_sift, describe
from recon.features.interest_points import extract_interest_points, match_interest_points
from recon.features.scale_propagation import propagate_pair_scales

OPENCV_BINS = 3.0  # OpenCV's bins are three times sigma wide, and a keypoint's size is twice its sigma


def seconds(fn: Callable[[], object], repeats: int, warmup: int = 1) -> tuple[float, float, float, float]:
    """Wall seconds (minimum, median, maximum), and the least CPU seconds of one call, all threads together."""
    used = []

    def call() -> None:
        start = time.process_time()
        fn()
        used.append(time.process_time() - start)

    return *timed(call, repeats, warmup), min(used)


def read(path: Path) -> np.ndarray:
    return np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])


def opencv_everywhere(rgb: np.ndarray, scale_map: np.ndarray, bins: float = OPENCV_BINS) -> np.ndarray:
    """OpenCV's upright SIFT at every pixel, its bin size made equal to the scale map."""
    height, width = scale_map.shape
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    # The octave field (low byte 255: octave -1, next byte: layer) picks the level of OpenCV's own pyramid;
    # octave 0, layer 1 is its default for a keypoint made by hand.
    points = [
        cv2.KeyPoint(float(x), float(y), float(2 * scale_map[y, x] / bins), 0.0, 0.0, 1 << 8)
        for y in range(height)
        for x in range(width)
    ]
    kept, descriptors = cv2.SIFT_create().compute(grey, points)
    assert len(kept) == height * width
    return np.clip(descriptors, 0, 255).astype(np.uint8).reshape(height, width, 128)


def speed(root: Path, repeats: int) -> str:
    folder = root / "datasets" / "flow_middlebury" / "Grove2"
    a, b = read(folder / "frame10.png"), read(folder / "frame11.png")
    points = extract_interest_points(a), extract_interest_points(b)
    scales, _ = propagate_pair_scales(a, b, *points, match_interest_points(*points))
    ladder = build_ladder(a)
    rows: list[list[object]] = []
    for threads in (1, 2):
        name = f"{threads} thread" + "s" * (threads > 1)
        rows.append(["recon, ladder", name, *seconds(lambda t=threads: build_ladder(a, threads=t), repeats)])
        gather = seconds(lambda t=threads: describe(ladder, scales, threads=t), repeats)
        rows.append(["recon, gather", name, *gather])
        both = seconds(lambda t=threads: describe(build_ladder(a, threads=t), scales, threads=t), repeats)
        rows.append(["recon, ladder and gather", name, *both])
    rows.append(["recon, fixed scale", "1 thread", *seconds(lambda: dense_sift(a), repeats)])
    rows.append(
        [
            "OpenCV SIFT.compute at every pixel",
            "its own",
            *seconds(lambda: opencv_everywhere(a, scales), 1, 0),
        ]
    )
    megabytes = f"ladder: {ladder.nbytes / 1e6:.0f} MB, {ladder.nbytes / a[..., 0].size:.0f} bytes a pixel"
    return table(rows, ["640x480", "threads", "min s", "median s", "max s", "CPU s"]) + "\n" + megabytes


@njit(cache=True)
def nearest_error(a, b, xy, truth, radius):  # type: ignore[no-untyped-def]
    """Distance between the true position and that of the nearest descriptor in the window round it."""
    out = np.empty(len(xy))
    for n in range(len(xy)):
        x, y = xy[n]
        cx, cy = int(np.rint(truth[n, 0])), int(np.rint(truth[n, 1]))
        best = 1 << 30
        for v in range(max(cy - radius, 0), min(cy + radius + 1, b.shape[0])):
            for u in range(max(cx - radius, 0), min(cx + radius + 1, b.shape[1])):
                total = 0
                for c in range(128):
                    total += abs(np.int32(a[y, x, c]) - np.int32(b[v, u, c]))
                if total < best:
                    best = total
                    out[n] = np.hypot(u - truth[n, 0], v - truth[n, 1])
    return out


def read_flo(path: Path) -> np.ndarray:
    raw = path.read_bytes()
    width, height = np.frombuffer(raw, np.int32, 2, 4)
    return np.frombuffer(raw, np.float32, 2 * width * height, 12).reshape(height, width, 2)


def quality(root: Path, sets: tuple[str, ...], factors: tuple[float, ...], samples: int, opencv: bool) -> str:
    rows: list[list[object]] = []
    for factor in factors:
        shares: dict[str, list[tuple[float, float]]] = {}
        for name in sets:
            folder = root / "datasets" / "flow_middlebury" / name
            a, b, flow = (
                read(folder / "frame10.png"),
                read(folder / "frame11.png"),
                read_flo(folder / "flow10.flo"),
            )
            height, width = a.shape[:2]
            size = np.array([round(width * factor), round(height * factor)])
            if factor < 1:
                b = cv2.resize(b, tuple(int(n) for n in size), interpolation=cv2.INTER_AREA)
            y, x = np.mgrid[:height, :width]
            truth = (np.stack([x, y], -1) + flow + 0.5) * (size / [width, height]) - 0.5
            known = (np.abs(flow).max(-1) < 1e9) & (truth > 0).all(-1) & (truth < size - 1).all(-1)
            chosen = np.random.default_rng(0).choice(np.flatnonzero(known), samples, replace=False)
            xy, truth = np.stack([chosen % width, chosen // width], 1), truth.reshape(-1, 2)[chosen]
            points = extract_interest_points(a), extract_interest_points(b)
            map_a, map_b = propagate_pair_scales(a, b, *points, match_interest_points(*points))
            described = {"fixed scale": (dense_sift(a), dense_sift(b))}
            for smoothing in (0.35, SMOOTHING, 0.7, 1.0):
                described[f"own scale, blur {smoothing} bins"] = (
                    describe(build_ladder(a, smoothing=smoothing), map_a),
                    describe(build_ladder(b, smoothing=smoothing), map_b),
                )
            if opencv:
                described["OpenCV, own scale"] = opencv_everywhere(a, map_a), opencv_everywhere(b, map_b)
            for method, (da, db) in described.items():
                error = nearest_error(da, db, xy, truth, max(5, round(15 * factor)))
                shares.setdefault(method, []).append((float((error < 1).mean()), float((error < 2).mean())))
        for method, values in shares.items():
            near, close = np.mean(values, axis=0)
            rows.append([factor, method, f"{100 * near:.1f}%", f"{100 * close:.1f}%"])
    return table(rows, ["resized", "descriptor", "within 1 px", "within 2 px"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer repeats and sets, no OpenCV in the second table"
    )
    quick = parser.parse_args().quick
    root = data_root()
    print(machine(), "\n")
    print(speed(root, 3 if quick else 7), "\n")
    sets = ("Grove2", "Urban2") if quick else ("Grove2", "RubberWhale", "Urban2", "Venus")
    print(f"Nearest descriptor, mean over {', '.join(sets)}")
    print(quality(root, sets, (1.0, 0.5, 0.35), 800 if quick else 1500, not quick))


if __name__ == "__main__":
    main()
