"""Milliseconds per 240×240 pair of the hyperpixel network, by backbone and device.

    python benchmarks/hyperpixels_speed.py [--repeats 5]

Times do not depend on the weights: they are random, and every other layer is selected, as with a selection rate of 0.5.
"features" is one image through the backbone; all pairs of an image share it, and its transforms once they were made.
"match" is the rest of a pair in both directions: gates, correlation, Hough matching, mutual filtering and the peaks.
"pair" is two features and a match. The backbone's share of the peak rate: its multiplications and additions per second
over those of a large matrix product on the same device in the same precision.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch
from _common import machine, table

from recon.hyperpixels.backbones import BACKBONES, Backbone
from recon.hyperpixels.cells import match_cells
from recon.hyperpixels.dhpf import DynamicHyperpixelFlow

SIDE = 240


def seconds(device: str, repeats: int, job) -> list[float]:  # type: ignore[no-untyped-def]
    """Sorted wall times of a job, after one warm-up."""
    found = []
    for _ in range(repeats + 1):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        job()
        if device == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return sorted(found[1:])


def peak_rate(device: str) -> float:
    """Multiplications and additions per second of a large matrix product in single precision."""
    n = 4096 if device == "cuda" else 1024
    a = torch.randn(n, n, device=device)
    return 2 * n**3 / seconds(device, 5, lambda: a @ a)[0]


def backbone_work(backbone: Backbone) -> float:
    """Multiplications and additions of one image through a backbone's convolutions."""
    total = 0.0
    hooks = []

    def count(module, _, output) -> None:  # type: ignore[no-untyped-def]
        nonlocal total
        total += 2.0 * output.numel() * module.weight[0].numel()

    for module in backbone.modules():
        if isinstance(module, torch.nn.Conv2d):
            hooks.append(module.register_forward_hook(count))
    backbone.features(torch.zeros(1, 3, SIDE, SIDE, device=next(backbone.parameters()).device))
    for hook in hooks:
        hook.remove()
    return total


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--backbones", nargs="*", default=list(BACKBONES))
    arguments = parser.parse_args()
    rows = []
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        peak = peak_rate(device)
        for name in arguments.backbones:
            torch.manual_seed(0)
            network = DynamicHyperpixelFlow(BACKBONES[name]()).eval().requires_grad_(False).to(device)
            chosen = tuple(range(0, len(network.candidates), 2))
            images = [torch.randn(1, 3, SIDE, SIDE, device=device) for _ in range(2)]
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            with torch.inference_mode():
                features = seconds(device, arguments.repeats, lambda n=network, i=images: n.prepare(i[0]))
                a, b = (network.prepare(image) for image in images)

                def match(n=network, one=a, other=b, layers=chosen) -> None:  # type: ignore[no-untyped-def]
                    n.select(one, other)
                    match_cells(n.correlate(one, other, layers))

                matched = seconds(device, arguments.repeats, match)
                work = backbone_work(network.backbone)
            memory = (
                torch.cuda.max_memory_allocated() / 1e6
                if device == "cuda"
                else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
            )
            pair = [2 * f + m for f, m in zip(features, matched, strict=True)]
            middle = len(pair) // 2
            rows.append(
                [
                    device,
                    name,
                    f"{1000 * features[middle]:.0f}",
                    f"{1000 * matched[middle]:.0f}",
                    f"{1000 * pair[0]:.0f} / {1000 * pair[middle]:.0f} / {1000 * pair[-1]:.0f}",
                    f"{memory:.0f}",
                    f"{work / features[middle] / peak:.0%}",
                ]
            )
    print(machine())
    print(
        table(
            rows,
            [
                "device",
                "backbone",
                "features ms",
                "match ms",
                "pair ms (min / median / max)",
                "peak MB so far",
                "backbone's share of peak rate",
            ],
        )
    )


if __name__ == "__main__":
    main()
