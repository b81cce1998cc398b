"""Semantic correspondence on WILLOW-ObjectClass step by step: PCK@0.1 by the image's side, from SIFT to trained DHPF.

    python benchmarks/semantic_table.py --results r.json --strong FILE [--weak FILE] [--flow FILE]
        [--alone Car=FILE --alone Duck=FILE] [--only NAME ...] [--pairs 200]

Pairs are those of ``recon evaluate semantic --benchmark willow``: drawn with seed 0 from test images, which no
training or validation pair shows; --pairs takes fewer of them, evenly spread. A checkpoint that was trained on one
class alone is tested on both: on the other class it shows what carries over. "untrained" are transforms that leave
layers as they are, random gates, and thresholds set from training pairs. Rows already in the results file are not
computed again, so that several processes may share the work. A second table compares each row with HPF and mutual
filter on the same pairs: difference and its 95% interval (paired bootstrap over pairs). Its last row takes for each
class the checkpoint that was trained on the other one alone: what carries over to a class not trained on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch
from _common import data_root, machine, table

from recon.evaluation.bootstrap import paired_difference
from recon.evaluation.semantic_benchmark import run_benchmark
from recon.evaluation.semantic_options import SemanticOptions
from recon.hyperpixels.checkpoint import checkpoint_bytes
from recon.training.dhpf import untrained_network

CLASSES = ("Car", "Duck")
AGAINST = "HPF, and mutual filter"
HELD_OUT = "DHPF strong, trained on the other class"


def main() -> None:
    """Compute what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--layers", default="", help="of HPF, found by beam search")
    parser.add_argument("--candidates", default="10,11,12,13,14,15,16")
    parser.add_argument("--mu", type=float, default=0.75)
    for name in ("strong", "weak", "flow"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--alone", action="append", default=[], help="CLASS=CHECKPOINT")
    parser.add_argument("--only", nargs="*", default=[])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    root = data_root() / "datasets" / "semantic_willow"
    temporary = tempfile.TemporaryDirectory()

    def untrained() -> str:
        path = Path(temporary.name) / "untrained.safetensors"
        network = untrained_network(root, arguments.candidates, arguments.mu)
        path.write_bytes(checkpoint_bytes(network))
        return str(path)

    methods: dict[str, dict] = {
        "dense SIFT, nearest neighbour": {"method": "sift-nn"},
        "SIFT Flow, scale-propagated": {"method": "siftflow"},
        "MobileNetV2, nearest neighbour": {"method": "nn"},
        "+ Hough matching": {"method": "nn+rhm"},
        "HPF": {"method": "hpf"},
        "HPF, layers of the beam search": {"method": "hpf", "layers": arguments.layers},
        "HPF, and mutual filter": {"method": "hpf+mutual"},
        "EfficientNet-Lite0, nearest neighbour": {"method": "nn", "backbone": "efficientnet-lite0"},
        "EfficientNet-Lite0, + Hough matching": {"method": "nn+rhm", "backbone": "efficientnet-lite0"},
        "EfficientNet-Lite0, HPF": {"method": "hpf", "backbone": "efficientnet-lite0"},
        "DHPF untrained": {"method": "dhpf", "checkpoint": untrained},
        "DHPF weak": {"method": "dhpf", "checkpoint": arguments.weak},
        "DHPF flow": {"method": "dhpf", "checkpoint": arguments.flow},
        "DHPF strong": {"method": "dhpf", "checkpoint": arguments.strong},
    }
    for entry in arguments.alone:
        name, _, file = entry.partition("=")
        methods[alone(name)] = {"method": "dhpf", "checkpoint": file}
    for name, options in methods.items():
        skip = any(key in options and not options[key] for key in ("checkpoint", "layers"))
        if skip or (arguments.only and name not in arguments.only) or name in read(arguments.results):
            continue
        ready = {key: value() if callable(value) else value for key, value in options.items()}
        chosen = SemanticOptions(limit=arguments.pairs, alpha=(0.1,), **ready)
        report = run_benchmark("willow", root, chosen, progress=True)
        times = sorted(score.seconds for score in report.scores)
        rates = report.selection_rates()
        result = {
            "pck": [report.mean_pck(0.1, category) for category in (*CLASSES, None)],
            "ms": 1000 * times[len(times) // 2],
            "layers": {str(layer): rate for layer, rate in rates.items()},
            "pairs": len(report.scores),
            "scores": [[score.category, score.pck[0.1]] for score in report.scores],
        }
        arguments.results.write_text(json.dumps({**read(arguments.results), name: result}, indent=1))
    known = read(arguments.results)
    rows = []
    for name in methods:
        if name in known:
            one = known[name]
            layers = " ".join(f"{k}:{v:.0%}" if v < 1 else k for k, v in one["layers"].items())
            rows.append([name, *(f"{value:.3f}" for value in one["pck"]), f"{one['ms']:.0f}", layers or "-"])
    print(machine())
    print(table(rows, ["method", *CLASSES, "both", "ms per pair", "layers"]))
    others = [name for name in methods if name != AGAINST and "scores" in known.get(name, {})]
    if "scores" in known.get(AGAINST, {}) and others:
        compared = {name: known[name]["scores"] for name in others}
        if all(alone(category) in compared for category in CLASSES):
            compared[HELD_OUT] = held_out({category: compared[alone(category)] for category in CLASSES})
        shown = [[name, *differences(scores, known[AGAINST]["scores"])] for name, scores in compared.items()]
        print(f"\n{table(shown, ['minus ' + AGAINST, *CLASSES, 'both'])}")


def alone(category: str) -> str:
    """The row of the checkpoint trained on one class alone."""
    return f"DHPF strong, {category} alone"


def held_out(scores: dict[str, list]) -> list:
    """Every pair's score by the checkpoint that was trained on the other class.

    Args:
        scores: by the class that a checkpoint was trained on: class and PCK of every pair, in one order.
    """
    first, second = (scores[category] for category in CLASSES)
    return [b if a[0] == CLASSES[0] else a for a, b in zip(first, second, strict=True)]


def differences(mine: list, others: list) -> list[str]:
    """Difference of the mean PCK on the pairs of each class and on all, with its interval."""
    found = []
    for category in (*CLASSES, None):
        a, b = (
            {k: value for k, (of, value) in enumerate(scores) if category in (of, None)}
            for scores in (mine, others)
        )
        test = paired_difference(a, b)
        found.append(f"{test.difference:+.3f} [{test.low:+.3f}, {test.high:+.3f}]")
    return found


def read(path: Path) -> dict:
    """Rows computed so far."""
    return json.loads(path.read_text()) if path.is_file() else {}


if __name__ == "__main__":
    main()
