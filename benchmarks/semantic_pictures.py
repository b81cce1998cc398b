"""Pictures of the documentation: which layers pairs select, and warps of pairs that SIFT Flow cannot do.

    python benchmarks/semantic_pictures.py [--out docs/images/hyperpixels] [--only gates|warps]

gates.png: every WILLOW test pair of ``recon evaluate semantic`` (100 of each class) and the layers that the shipped
checkpoint selects for it. warps.jpg: source, target, and the target brought to the source by the flow of each matcher,
with the share of keypoints that the flow takes to within a tenth of the image's side. The pairs are the first two of
each class's list, whatever their result, and a photo of a rendered scene beside the same place in other light and
colours.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from _common import data_root, machine, table

from recon.core.resize import resize_rgb
from recon.datasets.semantic import load_pairs
from recon.evaluation.semantic import pck
from recon.evaluation.semantic_benchmark import PAPER_SIDE, read_image, resized_points, run_benchmark
from recon.evaluation.semantic_options import SemanticOptions
from recon.matching.registry import create_matcher
from recon.matching.types import MatchImage, PairContext
from recon.render.gates import draw_gates
from recon.render.pictures import warp_picture

MATCHERS = ("siftflow", "hpf", "dhpf", "dhpf-siftflow")
CLASSES = ("Car", "Duck")


def gates(out: Path, root: Path) -> None:
    """Heat map of selections, and rates by class."""
    report = run_benchmark("willow", root, SemanticOptions(method="dhpf"), progress=True)
    draw_gates(report.scores, out / "gates.png")
    print(report.text().splitlines()[-1])


def examples(root: Path) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Name, both images (240 x 240) and corresponding points."""
    found = []
    square = (PAPER_SIDE, PAPER_SIDE)
    pairs = load_pairs("willow", root, "test")
    for category in CLASSES:
        for pair in [p for p in pairs if p.category == category][:2]:
            images, points = [], []
            for path, xy in ((pair.source, pair.source_points), (pair.target, pair.target_points)):
                rgb = read_image(path)
                images.append(resize_rgb(np.ascontiguousarray(rgb), *square))
                points.append(resized_points(xy, rgb.shape, square))
            found.append((category, images[0], images[1], points[0], points[1]))
    return [*found, rendered()]


def rendered() -> tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two views of a rendered scene, the second in other light: contrast turned round in part, colours exchanged."""
    import tempfile

    from recon.synthetic.difficulties import render_benchmark_scene
    from recon.synthetic.warps import visible_positions

    with tempfile.TemporaryDirectory() as folder:
        truth = render_benchmark_scene(Path(folder) / "s", scene="facade", seed=3, photos=3, size=(320, 240))
        names = sorted(truth.cameras)[:2]
        depths = [truth.depth(name) for name in names]
        position = visible_positions(depths[0], depths[1], *(truth.cameras[name] for name in names))
        images = [read_image(truth.images / name) for name in names]
    rows, columns = np.mgrid[20:220:20, 20:300:20].reshape(2, -1)
    there = position[rows, columns]
    inside = np.isfinite(there).all(1)
    square = (PAPER_SIDE, PAPER_SIDE)
    here = np.stack([columns, rows], 1).astype(np.float64)[inside]
    other = images[1].astype(np.float32)[..., ::-1]
    other = 255 * (other / 255) ** 2.2 * np.array([1.0, 0.75, 0.5]) + 25
    light = np.clip(other, 0, 255).astype(np.uint8)
    return (
        "rendered, other light",
        resize_rgb(images[0], *square),
        resize_rgb(np.ascontiguousarray(light), *square),
        resized_points(here, (240, 320), square),
        resized_points(there[inside].astype(np.float64), (240, 320), square),
    )


def warps(out: Path, root: Path) -> None:
    """The pictures side by side, and a table of the shares of points that were found."""
    matchers = {name: create_matcher(name) for name in MATCHERS}
    rows, cells = [], []
    for name, source, target, own, truth in examples(root):
        line, shares = [source, target], []
        for matcher in matchers.values():
            sides = [matcher.prepare(MatchImage(one)) for one in (source, target)]
            flow = matcher.match(*sides, PairContext()).a_to_b.flow
            at = np.clip(own, 0, PAPER_SIDE - 1).astype(np.float32)
            move = cv2.remap(flow, at[None, :, 0], at[None, :, 1], cv2.INTER_LINEAR)[0]
            shares.append(pck(own + move, truth, PAPER_SIDE, 0.1))
            line.append(np.asarray(warp_picture(target, flow)))
        rows.append((name, line, shares))
        cells.append([name, *(f"{share:.2f}" for share in shares)])
    print(machine())
    print(table(cells, ["pair", *MATCHERS]))
    side, gap, head = PAPER_SIDE, 6, 26
    heads = ["source", "target", *MATCHERS]
    sheet = np.full((head + len(rows) * (side + gap + head), len(heads) * (side + gap), 3), 255, np.uint8)
    for k, text in enumerate(heads):
        write(sheet, text, k * (side + gap) + 4, 18)
    for r, (name, line, shares) in enumerate(rows):
        y = head + r * (side + gap + head)
        for k, picture in enumerate(line):
            x = k * (side + gap)
            sheet[y : y + side, x : x + side] = picture[..., :3]
            text = name if k == 0 else f"PCK@0.1 {shares[k - 2]:.2f}" if k > 1 else ""
            write(sheet, text, x + 4, y + side + 18)
    cv2.imwrite(str(out / "warps.jpg"), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


def write(sheet: np.ndarray, text: str, x: int, y: int) -> None:
    """Draw a line of text."""
    cv2.putText(sheet, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)


def main() -> None:
    """Draw what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    here = Path(__file__).resolve().parents[1]
    parser.add_argument("--out", type=Path, default=here / "docs" / "images" / "hyperpixels")
    parser.add_argument("--only", choices=("gates", "warps"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    root = data_root() / "datasets" / "semantic_willow"
    if arguments.only != "warps":
        gates(arguments.out, root)
    if arguments.only != "gates":
        warps(arguments.out, root)


if __name__ == "__main__":
    main()
