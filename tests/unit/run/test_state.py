"""Results of an earlier state are found by the manifest."""

from __future__ import annotations

from pathlib import Path

import pytest

from recon.api import stages
from recon.datasets.given_cameras import read_cameras
from recon.errors import ReconError
from recon.io.manifest import MANIFEST, Manifest, StageRecord
from recon.run.state import STAGE_OF, old_results, refuse_old


def workspace(root: Path, **states: str) -> Path:
    records = {name: StageRecord("f", state) for name, state in states.items()}
    (root / MANIFEST).write_text(Manifest(stages=records).to_json())
    (root / "dense").mkdir()
    (root / "dense" / "points.ply").touch()
    (root / "report.html").touch()
    return root


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ("stale", "have changed"),
        ("failed", "it failed"),
        ("interrupted", "stopped"),
        ("running", "not ended"),
    ],
)
def test_a_result_whose_stage_is_not_done_is_named(tmp_path: Path, state: str, why: str) -> None:
    root = workspace(tmp_path, fuse=state, report="done", map="failed")
    (found,) = old_results(root)  # map has left nothing, the report is current
    assert str(root / "dense" / "points.ply") in found
    assert "fuse" in found
    assert why in found
    refuse_old(root, "report.html", "sparse/0")
    with pytest.raises(ReconError, match=r"points\.ply.*recon reconstruct.*--out"):
        refuse_old(root)


def test_folders_of_other_programs_are_taken_as_they_are(tmp_path: Path) -> None:
    assert old_results(tmp_path) == []
    assert old_results(workspace(tmp_path, fuse="done")) == []


def test_every_result_has_a_stage() -> None:
    assert set(STAGE_OF.values()) <= {stage.name for stage in stages()}


def test_cameras_of_an_earlier_state_are_not_given_to_another_run(tmp_path: Path) -> None:
    root = workspace(tmp_path, map="failed")
    (root / "sparse" / "0").mkdir(parents=True)
    (root / "sparse" / "0" / "images.bin").touch()
    with pytest.raises(ReconError, match=r"sparse/0 is of an earlier state.*map is not done"):
        read_cameras(root)
