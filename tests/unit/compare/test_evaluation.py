"""What is kept of a report is what was judged, and a ranking claims no more than the values allow."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from recon.compare import evaluation as evaluations
from recon.compare.evaluation import Evaluation, difference, evaluated
from recon.compare.metrics import key_metrics, written
from recon.compare.plan import Scene
from recon.compare.results import rank
from recon.compare.tables import standing
from recon.evaluation.bootstrap import mean, paired_difference
from recon.evaluation.report import RunReport, Samples
from recon.io.files import finite
from tests.support.compare_inputs import entries, entry, evaluation


def test_a_run_is_evaluated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def judge(*_: object, **__: object) -> RunReport:
        calls.append(1)
        values = {("a", "b"): 1.0, ("a", "c"): math.inf}
        return RunReport({"x": math.inf, "y": math.nan}, samples={"x": Samples(values, "mean")}, notes=("n",))

    run = tmp_path / "run"
    run.mkdir()
    record = {"fingerprint": "f", "state": "done", "seconds": 1.0}

    def manifest(mark: str) -> None:
        stages = {"match": {**record, "fingerprint": mark}}
        (run / "manifest.json").write_text(
            json.dumps({"format": 1, "source": "", "source_fingerprint": "", "stages": stages})
        )

    monkeypatch.setattr(evaluations, "evaluate_run", judge)
    scene = Scene("s", tmp_path)
    manifest("one")
    first = evaluated(run, scene, tmp_path / "kept.json")
    again = evaluated(run, scene, tmp_path / "kept.json")
    assert len(calls) == 1
    assert again.metrics["x"] == math.inf
    assert math.isnan(again.metrics["y"])
    assert again.samples == first.samples
    assert again.notes == ("n",)
    manifest("two")
    evaluated(run, scene, tmp_path / "kept.json")
    assert len(calls) == 2
    (tmp_path / "kept.json").write_text("{")
    evaluated(run, scene, tmp_path / "kept.json")
    assert len(calls) == 3


def test_the_difference_is_the_paired_one() -> None:
    a, b = evaluation(2.0, 0.2, 1), evaluation(2.3, 0.2, 2)
    found = difference("poses.mean_error", a, b)
    assert found is not None
    expected = paired_difference(
        a.samples["poses.mean_error"].values, b.samples["poses.mean_error"].values, mean
    )
    assert found == expected
    assert not found.inside_noise  # the photos' own spread, 0.5, would hide it without the pairing
    assert difference("mesh.f_20mm", a, b) is None


def test_ranking() -> None:
    found = rank(entries())
    errors = found["poses.mean_error"]
    assert {errors.best, *errors.inside_noise} == {"good", "same"}
    assert "worse" in errors.tested
    # One number each: there is no noise to compare with, and NaN is nobody's score.
    assert found["mesh.f_20mm"].best == "good"
    assert found["mesh.f_20mm"].tested == ()
    # A run that failed is cheap, but not the cheapest; what it counted has no rival.
    assert found["cost.seconds"].best == "worse"
    assert "run.points" not in found


def test_who_found_fewer_cameras_is_not_more_accurate() -> None:
    values = (("all", 1.0, 0.5, 0.9), ("few", 0.6, 0.1, 0.95), ("also", 1.0, 0.7, 0.8))
    listed = [
        entry(
            label,
            Evaluation(
                {
                    "registered.share": share,
                    "poses.mean_error": error,
                    "matches.precision_1px": good,
                    "photo_consistency": good,
                    "cost.seconds": error,
                }
            ),
        )
        for label, share, error, good in values
    ]
    assert rank(listed)["poses.mean_error"].best == "all"
    assert rank(listed)["matches.precision_1px"].best == "few"
    # Of fewer, easier photos more points agree, and they cost less.
    assert rank(listed)["photo_consistency"].best == "all"
    assert rank(listed)["cost.seconds"].best == "all"


def test_who_is_worse_where_both_have_values_is_not_best() -> None:
    """The best has one easy photo more; over the photos of both it is the worse."""
    values = (("a", {"1": 0.5, "2": 0.5, "3": 1.0}), ("b", {"1": 0.6, "2": 0.6}))
    listed = []
    for label, each in values:
        metric = {"photo_consistency": float(np.mean(list(each.values())))}
        listed.append(entry(label, Evaluation(metric, samples={"photo_consistency": Samples(each, "mean")})))
    found = rank(listed)["photo_consistency"]
    assert (found.best, found.inside_noise, found.tested) == ("a", ("b",), ("b",))


def test_seeds_that_overlap_are_the_same() -> None:
    a, b = (entry(name, Evaluation({"mesh.f_20mm": value})) for name, value in (("a", 0.8), ("b", 0.7)))
    a.spread["mesh.f_20mm"], b.spread["mesh.f_20mm"] = (0.75, 0.85), (0.6, 0.76)
    assert rank([a, b])["mesh.f_20mm"].inside_noise == ("b",)
    b.spread["mesh.f_20mm"] = (0.6, 0.74)
    assert rank([a, b])["mesh.f_20mm"].inside_noise == ()


def test_what_is_said_of_each_beside_the_best() -> None:
    ranking = {"best": "a", "inside_noise": ["b"], "tested": ["b", "c"]}
    assert [standing(ranking, label) for label in "abcd"] == ["best", "within noise", "worse", ""]
    assert standing(None, "a") == ""


def test_the_short_table_has_the_middle_threshold() -> None:
    names = [f"mesh.f_{t}mm" for t in (5, 10, 20, 50, 100)]
    assert key_metrics([*names, "poses.auc_5", "poses.auc_1"]) == {"mesh.f_20mm", "poses.auc_5"}


def test_numbers_as_written() -> None:
    assert [written(v, u) for v, u in ((0.1234, "share"), (3.0, ""), (None, ""), (math.inf, "px"))] == [
        "12.3%",
        "3",
        "–",
        "∞",
    ]
    assert written(0.00123456) == "0.00123"
    assert finite({"a": [1.0, math.nan, (math.inf,)]}) == {"a": [1.0, None, [None]]}
