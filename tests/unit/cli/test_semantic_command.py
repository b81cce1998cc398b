"""``recon evaluate semantic`` and ``recon train`` from the outside, on data made in the official layouts."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from recon.cli import main
from recon.evaluation.semantic_benchmark import run_benchmark
from recon.evaluation.semantic_options import SemanticOptions
from recon.hyperpixels.backbones import create_backbone


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Random weights whose normalisation fits them: else values fade from layer to layer."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random.pt"
    backbone = create_backbone("mobilenetv2")
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum, module.training = 1.0, True
    backbone.features(torch.randn(2, 3, 64, 64))
    state = backbone.state_dict()
    torch.save({key.replace("features_.", "features."): value for key, value in state.items()}, path)
    return str(path)


def texture(seed: int, height: int = 180, width: int = 240) -> np.ndarray:
    noise = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)


def shifted_views() -> list[tuple[np.ndarray, np.ndarray]]:
    """Windows of one texture with the position of its left upper corner: points correspond exactly."""
    whole = texture(0)
    return [(whole[y : y + 120, x : x + 160], np.array([x, y])) for x, y in ((20, 20), (44, 30), (30, 48))]


def test_points_of_moved_views_are_found(tmp_path: Path, weights: str) -> None:
    root = tmp_path / "SPair-71k"
    views = shifted_views()
    (root / "JPEGImages" / "rug").mkdir(parents=True)
    (root / "PairAnnotation" / "test").mkdir(parents=True)
    (root / "Layout" / "large").mkdir(parents=True)
    for k, (image, _) in enumerate(views):
        cv2.imwrite(str(root / "JPEGImages" / "rug" / f"{k}.png"), image[..., ::-1])
    points = np.random.default_rng(1).uniform((70, 70), (160, 120), (8, 2))
    names = []
    for a, b in ((0, 1), (1, 2), (2, 0)):
        names.append(f"00000{a}-{a}-{b}:rug")
        annotation = {
            "category": "rug",
            "src_imname": f"{a}.png",
            "trg_imname": f"{b}.png",
            "src_kps": (points - views[a][1]).tolist(),
            "trg_kps": (points - views[b][1]).tolist(),
            "src_bndbox": [0, 0, 159, 119],
            "trg_bndbox": [10, 10, 130, 110],
            "viewpoint_variation": b,
        }
        (root / "PairAnnotation" / "test" / f"{names[-1]}.json").write_text(json.dumps(annotation))
    (root / "Layout" / "large" / "test.txt").write_text("\n".join(names) + "\n")
    report = run_benchmark(
        "spair-71k",
        tmp_path,
        SemanticOptions(method="hpf", weights=weights, layers="3,6", alpha=(0.05, 0.1)),
    )
    assert report.mean_pck(0.1) > 0.9  # by chance: 0.03
    assert report.mean_pck(0.05) > 0.75
    assert report.scores[0].layers == (3, 6)
    # A dense matcher of the registry is measured in the same way.
    for other in ("dsift-flow", "sift-nn"):
        assert run_benchmark("spair-71k", tmp_path, SemanticOptions(method=other)).mean_pck(0.1) == 1
    # Our matcher of a method's name, with the options that it has; the protocol of the authors.
    ours = SemanticOptions(method="matcher:hpf", weights=weights, layers="3,6", limit=1)
    report = run_benchmark("spair-71k", tmp_path, ours)
    assert report.mean_pck(0.1) > 0.9
    assert report.scores[0].layers == (3, 6)
    authors = SemanticOptions(method="hpf", weights=weights, layers="3,6", protocol="authors")
    report = run_benchmark("spair-71k", tmp_path, authors)
    assert report.mean_pck(0.1) > 0.5  # not enlarged, and 49 cells move each point
    assert list(report.breakdown()["viewpoint_variation"]) == ["easy", "medium", "hard"]
    picture = tmp_path / "gates.png"
    command = ["evaluate", "semantic", "--benchmark", "spair-71k", "--root", str(tmp_path)]
    assert main([*command, "--method", "dhpf", "--limit", "1", "--gates", str(picture)]) == 0
    assert cv2.imread(str(picture)).std() > 20
    assert main([*command, "--method", "sift-nn", "--limit", "1", "--gates", str(picture)]) == 2
    assert main([*command, "--method", "nn", "--protocol", "authors"]) == 2


def test_outlines_are_transferred(tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "Caltech-101"
    (root / "101_ObjectCategories" / "rug").mkdir(parents=True)
    views = shifted_views()
    for k, (image, _) in enumerate(views):
        cv2.imwrite(str(root / "101_ObjectCategories" / "rug" / f"{k}.png"), image[..., ::-1])
    corners = np.array([[80, 70], [150, 75], [145, 120], [90, 115]], float)
    side = np.linspace(0, 1, 12, endpoint=False)[:, None]
    outline = np.concatenate(
        [a + side * (b - a) for a, b in zip(corners, np.roll(corners, -1, 0), strict=True)]
    )
    with (root / "test_pairs_caltech_with_category.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["source_image", "target_image", "class", "XA", "YA", "XB", "YB"])
        row: list[object] = [*(f"101_ObjectCategories/rug/{k}.png" for k in (0, 1)), 1]
        for k in (0, 1):
            row += [",".join(map(str, values)) for values in (outline - views[k][1]).T]
        writer.writerow(row)
    command = ["evaluate", "semantic", "--benchmark", "caltech-101", "--root", str(tmp_path)]
    assert main([*command, "--method", "hpf", "--weights", weights, "--layers", "3,6"]) == 0
    lines = capsys.readouterr().out.splitlines()
    accuracy, overlap = (float(value) for value in lines[-3].split()[-2:])
    assert lines[-3].startswith("all pairs")
    assert accuracy > 0.95
    assert overlap > 0.85


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "semantic", "--benchmark", "pascal", "--root", "."], "no benchmark is named 'pascal'"),
        (["evaluate", "semantic", "--benchmark", "willow", "--root", "nowhere"], "there is no folder"),
        (["train", "dhpf", "--out", "x", "--supervision", "none"], "strong, weak or flow"),
        (["train", "dhpf", "--out", "x"], "--benchmark and --root"),
        (["train", "dhpf", "--out", "x", "--supervision", "flow"], "--photos, --scenes or --warps"),
    ],
)
def test_wrong_usage_is_said_in_a_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in error
