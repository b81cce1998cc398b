"""SIFT Flow energy on the reference's descriptors, beside the reference's own result.

    python benchmarks/siftflow_energy.py

Two cases: TPAMI settings on a 256x256 pair, SCALEMAPS settings on a pair with scale maps. Both flows are scored by the
same formula with the same cost for targets outside the image, once the reference's and once ours.
"""

from __future__ import annotations

import json

import numpy as np
from _common import data_root, machine, table, timed

from recon.matching.siftflow import SCALEMAPS, TPAMI, flow_energy, sift_flow


def main() -> None:
    print(f"SIFT Flow energy (1e6), full pyramid from the finest level's descriptors. {machine()}\n")
    rows = []
    for name, label, settings in (
        ("mars256_tpami", "TPAMI", TPAMI),
        ("st2_scalemaps", "SCALEMAPS", SCALEMAPS),
    ):
        data = np.load(data_root() / "reference" / f"{name}.npz")
        a, b = data["sift1"], data["sift2"]
        theirs = data["flow"].astype(np.float32)
        their_cost = json.loads(str(data["L1_meta"]))["default"]
        result = sift_flow(a, b, settings=settings)
        plain = sift_flow(a, b, settings=settings.model_copy(update={"polish": 0}))
        low, middle, high = timed(lambda a=a, b=b, s=settings: sift_flow(a, b, settings=s), repeats=5)
        for cost, whose in ((their_cost, "reference's"), (result.default_cost, "ours")):
            energies = [
                flow_energy(f, a, b, settings=settings, default_cost=cost) / 1e6
                for f in (theirs, plain.flow, result.flow)
            ]
            rows.append(
                [
                    name, label, whose, *(f"{e:.4f}" for e in energies), f"{energies[2] / energies[0] - 1:+.4%}",
                    f"{(theirs == result.flow).all(-1).mean():.3f}", f"{low:.3f} / {middle:.3f} / {high:.3f}",
                ]
            )  # fmt: skip
    headers = ["pair", "settings", "outside cost", "reference", "without polish", "recon"]
    print(table(rows, [*headers, "difference", "same flow", "s min / median / max of 5"]))


if __name__ == "__main__":
    main()
