"""Results of an earlier state are found by the manifest."""

from __future__ import annotations

from pathlib import Path

import pytest

from recon.api import stages
from recon.datasets.given_cameras import read_cameras
from recon.errors import ReconError
from recon.io.manifest import MANIFEST, Manifest, StageRecord, checksums, read_manifest
from recon.run.folder import RunFolder
from recon.run.state import STAGE_OF, check_unchanged, old_results, refuse_old


def workspace(root: Path, **states: str) -> Path:
    records = {name: StageRecord("f", state) for name, state in states.items()}
    (root / MANIFEST).write_text(Manifest(stages=records).to_json())
    (root / "dense").mkdir()
    (root / "dense" / "points.ply").touch()
    (root / "summary.txt").touch()
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
    refuse_old(root, "summary.txt", "sparse/0")
    with pytest.raises(ReconError, match=r"points\.ply.*recon reconstruct.*--out"):
        refuse_old(root)


def test_the_page_of_a_run_that_stopped_early_is_of_its_present_state(tmp_path: Path) -> None:
    (found,) = old_results(workspace(tmp_path, fuse="done", report="stale"))
    assert "summary.txt" in found  # report.html is written at the end of every run


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


def with_checksums(root: Path) -> Path:
    """A workspace whose stages photos, map and mesh are done, with the checksums of what they wrote."""
    wrote = {"photos": ["photos.json"], "map": ["sparse", "mapping.json"], "mesh": ["mesh/mesh.ply"]}
    for name in ("photos.json", "mapping.json", "sparse/0/images.bin", "mesh/mesh.ply"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("{}")
    records = {
        stage: StageRecord("f", "done", written=names, checksums=checksums(root, names, {"sparse"}))
        for stage, names in wrote.items()
    }
    (root / MANIFEST).write_text(Manifest(stages=records).to_json())
    return root


def test_files_of_folders_have_checksums_where_asked(tmp_path: Path) -> None:
    with_checksums(tmp_path)
    (tmp_path / "database.db").touch()  # COLMAP changes it when it opens it
    assert set(checksums(tmp_path, ["sparse", "mesh", "mapping.json", "database.db"], {"sparse"})) == {
        "sparse/0/images.bin",
        "mapping.json",
    }


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("photos.json", "photos"),
        ("mapping.json", "map"),
        ("sparse/0/images.bin", "map"),
        ("mesh/mesh.ply", "mesh"),
    ],
)
def test_a_file_of_another_run_is_named_with_its_stage(tmp_path: Path, name: str, stage: str) -> None:
    root = with_checksums(tmp_path)
    check_unchanged(root, "photos.json", "mapping.json", "sparse/0", "mesh/mesh.ply")
    assert old_results(root) == []
    (root / name).write_text("[]")
    with pytest.raises(
        ReconError, match=rf"{name}: is not the file that stage {stage} wrote.*--restart-from {stage}"
    ):
        check_unchanged(root, "photos.json", "mapping.json", "sparse/0", "mesh/mesh.ply")
    if name != "mapping.json":  # no result that commands hand out
        (found,) = old_results(root)
        assert str(root / name) in found


def test_a_run_folder_reads_no_file_of_another_run(tmp_path: Path) -> None:
    root = with_checksums(tmp_path)
    assert RunFolder(root).json("photos.json") == {}
    (root / "photos.json").write_text("[]")
    with pytest.raises(ReconError, match=r"photos\.json: is not the file that stage photos wrote"):
        RunFolder(root).json("photos.json")
    assert RunFolder(root).json("mapping.json") == {}


def test_a_manifest_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(b"\x89PNG")
    with pytest.raises(ReconError, match="the manifest is damaged"):
        read_manifest(tmp_path)
