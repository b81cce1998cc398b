"""Seconds of SIFT Flow and of a whole pair at 640x480.

    python benchmarks/siftflow_speed.py [--width 640 --height 480] [--repeats 5]

One direction (descriptors and their pyramids given; the data term is included) with TPAMI and SCALEMAPS
settings, and the
whole pair with everything: scale ladder, match-aware propagation, descriptors, both flows, sub-pixel refinement,
confidence and consistency. Interest points and their matching belong to the feature and pair stages and are timed
apart.
"""

from __future__ import annotations

import argparse

import cv2
import numpy as np
from _common import data_root, machine, table, timed

from recon.features.dense_sift import dense_sift
from recon.features.interest_points import extract_interest_points, match_interest_points
from recon.matching.registry import create_matcher
from recon.matching.siftflow import SCALEMAPS, TPAMI, descriptor_pyramid, sift_flow_pyramid
from recon.matching.types import MatchImage, PairContext


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()

    images = []
    for name in ("Mars-1.jpg", "Mars-2.jpg"):
        photo = cv2.imread(str(data_root() / "datasets" / "pairs" / name))[..., ::-1]
        size = (arguments.width, arguments.height)
        images.append(np.ascontiguousarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA)))
    pyramids = [descriptor_pyramid(dense_sift(image), 4) for image in images]

    rows = []

    def measure(what: str, fn: object) -> None:
        rows.append([what, *timed(fn, arguments.repeats)])  # type: ignore[arg-type]
        print(rows[-1], flush=True)

    for label, settings in (("TPAMI", TPAMI), ("SCALEMAPS", SCALEMAPS)):
        for threads in (1, 2):
            measure(
                f"flow, one direction, {label}, {threads} thread(s)",
                lambda s=settings, t=threads: sift_flow_pyramid(*pyramids, settings=s, threads=t),
            )
    measure("interest points, both images", lambda: [extract_interest_points(i) for i in images])
    points = [extract_interest_points(image) for image in images]
    measure("matching them", lambda: match_interest_points(*points))
    seeds = PairContext(match_interest_points(*points))
    for name, settings in (
        ("siftflow", {}),
        ("siftflow", {"propagation": "image-aware"}),
        ("dsift-flow", {}),
        ("dis", {}),
    ):
        for threads in (1, 2) if name != "dis" else (1,):
            extra = {"threads": threads} if name != "dis" else {}
            matcher = create_matcher(name, **settings, **extra)

            def whole(matcher=matcher) -> None:  # type: ignore[no-untyped-def]
                prepared = [
                    matcher.prepare(MatchImage(i, points=p)) for i, p in zip(images, points, strict=True)
                ]
                matcher.match(*prepared, seeds)

            measure(f"whole pair, {name} {settings.get('propagation', '')}, {threads} thread(s)", whole)
    print(f"\n{arguments.width}x{arguments.height}, {arguments.repeats} repeats. {machine()}\n")
    print(table(rows, ["what", "s min", "s median", "s max"]))


if __name__ == "__main__":
    main()
