from __future__ import annotations

import numpy as np
import pytest

from recon.errors import UsageError
from recon.evaluation.semantic import (
    PairScore,
    SemanticReport,
    intersection_over_union,
    label_transfer_accuracy,
    mask_of_outline,
    pck,
    reference_length,
)


def test_pck_counts_points_within_the_radius() -> None:
    truth = np.array([[10.0, 10.0], [50.0, 20.0], [0.0, 0.0], [30.0, 30.0]])
    moved = truth + np.array([[6.0, 8.0], [0.0, 10.1], [0.0, 0.0], [-30.0, 0.0]])
    assert pck(moved, truth, 100, 0.1) == 0.5  # a distance of exactly 10 counts
    assert pck(moved, truth, 100, 0.05) == 0.25
    assert pck(moved, truth, 303, 0.1) == 1.0
    with pytest.raises(UsageError, match="keypoints"):
        pck(np.zeros((0, 2)), np.zeros((0, 2)), 100)
    with pytest.raises(UsageError, match="positive"):
        pck(truth, truth, 0)


def test_reference_is_the_image_or_the_box() -> None:
    truth = np.array([[10.0, 20.0], [40.0, 90.0]])
    assert reference_length("image", (320, 240), (0, 0, 10, 10), truth) == 320
    assert reference_length("box", (320, 240), (5, 5, 55, 25), truth) == 50
    assert reference_length("box", (320, 240), None, truth) == 70
    with pytest.raises(UsageError, match="image"):
        reference_length("bbox", (1, 1), None, truth)


def test_mask_of_a_polygon_has_its_area() -> None:
    rng = np.random.default_rng(0)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
    polygon = np.stack([100 + 60 * np.cos(angles), 80 + 50 * np.sin(angles)], 1)
    x, y = polygon.T
    area = 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))
    assert mask_of_outline(polygon, 200, 160).sum() == pytest.approx(area, rel=0.03)
    # What sticks out is cut.
    assert mask_of_outline(polygon - (100, 0), 200, 160).sum() < 0.7 * area


def test_label_transfer_and_iou_of_two_boxes() -> None:
    a, b = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    a[2:6, 2:6], b[4:8, 2:6] = True, True
    assert intersection_over_union(a, b) == pytest.approx(8 / 24)
    assert label_transfer_accuracy(a, b) == pytest.approx(1 - 16 / 100)
    empty = np.zeros((4, 4), bool)
    assert intersection_over_union(empty, empty) == 1


def test_report_means_over_pairs_and_counts_layers() -> None:
    scores = (
        PairScore("car", {0.1: 1.0}, seconds=0.1, layers=(0, 2)),
        PairScore("car", {0.1: 0.5}, seconds=0.3, layers=(2,)),
        PairScore("duck", {0.1: 0.0}, seconds=0.2, layers=(1, 2)),
    )
    report = SemanticReport("B", "dhpf", scores)
    assert report.mean_pck() == pytest.approx(0.5)
    assert report.mean_pck(0.1, "car") == pytest.approx(0.75)
    assert report.selection_rates() == pytest.approx({0: 1 / 3, 1: 1 / 3, 2: 1})
    lines = report.text().splitlines()
    assert lines[2].split() == ["car", "2", "0.750"]
    assert lines[4].split() == ["all", "pairs", "3", "0.500"]
    assert "median 200, 100 to 300" in lines[5]
    assert "2: 100%" in lines[6]
    with pytest.raises(UsageError, match="no pair"):
        SemanticReport("B", "dhpf", ()).text()


def test_spair_is_told_by_kind_of_difficulty() -> None:
    levels = [(0, 2), (0, 0), (2, 2), (2, 3)]
    scores = tuple(
        PairScore("cat", {0.1: value}, variation={"viewpoint_variation": view, "occlusion": hidden})
        for value, (view, hidden) in zip((1.0, 0.5, 0.25, 0.0), levels, strict=True)
    )
    report = SemanticReport("SPair-71k", "hpf", scores)
    assert report.breakdown() == {
        "viewpoint_variation": {"easy": (2, 0.75), "hard": (2, 0.125)},
        "occlusion": {"none": (1, 0.5), "target": (2, 0.625), "both": (1, 0.0)},
    }
    lines = report.text().splitlines()
    assert "viewpoint, hard: 2 pairs     0.125" in lines
    assert "occlusion, target: 2 pairs     0.625" in lines
    assert SemanticReport("B", "hpf", (PairScore("cat", {0.1: 1.0}),)).breakdown() == {}
