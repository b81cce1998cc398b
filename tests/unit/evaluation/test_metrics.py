"""Metrics as they are declared: every one that an evaluation makes, once, with unit and direction."""

from __future__ import annotations

from pathlib import Path

import pytest

from recon.evaluation.metrics import GROUPS, METRICS, describe


@pytest.mark.parametrize(
    ("name", "better", "unit"),
    [
        ("poses.auc_5", "higher", "share"),
        ("poses.rotation_mean", "lower", "°"),
        ("matches.endpoint_within_1px", "higher", "share"),
        ("matches.impossible_share", "lower", "share"),
        ("points.completeness_mean_error", "lower", "truth"),
        ("mesh.accuracy_median_error", "lower", "truth"),
        ("mesh.f_20mm", "higher", "share"),
        ("mesh.judged_share", "", "share"),
        ("tracks.accuracy_share_5mm", "higher", "share"),
        ("tracks.reprojection_px", "lower", "px"),
        ("depth.correct_1pct_share", "higher", "share"),
        ("photo_consistency", "higher", ""),
        ("left_out.mesh_psnr", "higher", "dB"),
        ("left_out.cloud_coverage", "higher", "share"),
        ("cost.bytes_on_disk", "lower", "bytes"),
        ("flow.angular_deg", "lower", "°"),
        ("flow.outliers_3px", "lower", "share"),
    ],
)
def test_which_way_is_better(name: str, better: str, unit: str) -> None:
    found = describe(name)
    assert (found.better, found.unit) == (better, unit)


def test_labels_say_the_threshold() -> None:
    labels = [
        describe(name).label for name in ("mesh.f_20mm", "points.recall_1pct", "mesh.f_0.5u", "poses.auc_5")
    ]
    assert labels == ["mesh F 20 mm", "points recall 1 %", "mesh F 0.5 u", "AUC 5°"]
    assert describe("depth.correct_1pct_share").label == "depth right to 1%"
    assert describe("depth.correct_5pct_share").label == "correct 5 %"


def test_what_is_not_declared() -> None:
    for name in ("poses.auc_", "poses.auc_x", "mesh.f", "speed"):
        with pytest.raises(ValueError, match="not declared"):
            describe(name)


def test_declarations_are_documented_once() -> None:
    """docs/metrics.md names each, in full or by what follows the point."""
    text = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert {metric.group for metric in METRICS} == set(GROUPS)
    for metric in METRICS:
        if metric.group == "Run":
            continue
        assert metric.name.split("*")[0].rstrip("_").rpartition(".")[2] in text, metric.name
